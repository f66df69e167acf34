package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// atOnce is how many files are created at once.
const atOnce = 64

// createBar is how many files 64 creators must make in a second.
const createBar = 10_000

func measureCreates(ctx context.Context, r *report, o *options) error {
	return with(ctx, o, "creates", func(_ *cluster, v *client.Volume) error {
		var rates []float64
		for round := range o.rounds {
			rate, err := createFiles(v, fmt.Sprintf("round-%d", round), o.creates)
			if err != nil {
				return err
			}
			rates = append(rates, rate)
		}
		r.title("%d creates at once through the SDK, 3 nodes, %d rounds of %d", atOnce, o.rounds, o.creates)
		r.say("each round: %.0f a second", rates)
		r.atLeast("creates, median", median(rates), createBar, "a second")
		return nil
	})
}

// createFiles creates and closes n files from atOnce goroutines, each in a
// directory of its own, and returns how many it made in a second.
func createFiles(v *client.Volume, under string, n int) (float64, error) {
	if err := v.Mkdir(under, 0o755); err != nil {
		return 0, err
	}
	dirs := make([]*client.Volume, atOnce)
	for i := range dirs {
		name := fmt.Sprintf("%s/dir-%03d", under, i)
		if err := v.Mkdir(name, 0o755); err != nil {
			return 0, err
		}
		var err error
		if dirs[i], err = v.SubVolume(name); err != nil {
			return 0, err
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, atOnce)
	began := time.Now()
	for i, d := range dirs {
		wg.Go(func() {
			for k := next.Add(1); k <= int64(n) && errs[i] == nil; k = next.Add(1) {
				errs[i] = createFile(d, fileName(int(k)))
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(began).Seconds(), errors.Join(errs...)
}

func createFile(v *client.Volume, name string) error {
	f, err := v.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// How a commit is compared with the disk: in turn, so many of each.
const (
	commitRounds = 20
	commitsEach  = 50
	recordSize   = 256
)

// commitBar is how many times a 256-byte fdatasync one commit may take.
const commitBar = 5

// measureCommit makes directories one after another, each with one request.
func measureCommit(ctx context.Context, r *report, o *options) error {
	return with(ctx, o, "commit", func(c *cluster, _ *client.Volume) error {
		disk, err := newDisk(filepath.Join(o.dir, "commit", "fdatasync"))
		if err != nil {
			return err
		}
		defer disk.Close()
		var syncs, reads, commits latencies
		err = c.withFS(ctx, func(fs *file.FS) error {
			cred, root := ashlar.Cred{Checked: true}, fs.Root()
			for range commitRounds {
				err := errors.Join(
					syncs.time(disk.write),
					reads.time(func() error { return fs.Access(ctx, cred, root, 4) }),
					commits.time(func() error {
						name := fmt.Sprint("commit-", len(commits))
						_, err := fs.Make(ctx, cred, &wire.Make{Parent: root, Name: name, Type: ashlar.TypeDir, Mode: 0o755, Exclusive: true})
						return err
					}))
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		r.title("one metadata commit alone on three nodes, %d of them", len(commits))
		r.say("medians: fdatasync of %d bytes %.3f ms, a read answered by the leader %.3f ms, a commit %.3f ms",
			recordSize, ms(syncs.median()), ms(reads.median()), ms(commits.median()))
		r.atMost("commit over fdatasync", float64(commits.median())/float64(syncs.median()), commitBar, "times")
		return nil
	})
}

// time does something commitsEach times and adds how long each took.
func (l *latencies) time(fn func() error) error {
	for range commitsEach {
		began := time.Now()
		if err := fn(); err != nil {
			return err
		}
		*l = append(*l, time.Since(began))
	}
	return nil
}

// disk is a file with its blocks written beforehand, as a log has them.
type disk struct {
	*os.File
	written int64
}

func newDisk(name string) (*disk, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, commitRounds*commitsEach*recordSize)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &disk{File: f}, f.Sync()
}

// write writes the next record and returns when it has reached the disk.
func (d *disk) write() error {
	if _, err := d.WriteAt(make([]byte, recordSize), d.written*recordSize); err != nil {
		return err
	}
	d.written++
	return unix.Fdatasync(int(d.Fd()))
}
