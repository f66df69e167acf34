package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// clientVerb, as the first argument, makes this binary a client.
const clientVerb = "client"

// work is what the clients of a round work on.
type work struct {
	Refs  []object.Ref // files, for blocks
	Trees []names.Tree // of names
	Dir   string       // path of the round's directory, for files of the SDK
}

// clientMain works until its input ends, or it is killed.
func clientMain(args []string) int {
	var cluster, workFile, historyFile, name string
	var proc int
	var seed uint64
	f := flag.NewFlagSet(clientVerb, flag.ExitOnError)
	f.StringVar(&cluster, "cluster", "", "client file")
	f.StringVar(&workFile, "work", "", "what to work on")
	f.StringVar(&historyFile, "history", "", "where operations are noted")
	f.StringVar(&name, "name", "", "name of the client")
	f.IntVar(&proc, "proc", 0, "number of the process, different for all of a round")
	f.Uint64Var(&seed, "seed", 0, "seed")
	_ = f.Parse(args) // ends the process
	if err := runClient(cluster, workFile, historyFile, name, proc, seed); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	return 0
}

// openTimeout is how long a client may take to get its sessions, which is in
// the middle of faults.
const openTimeout = 60 * time.Second

func runClient(cluster, workFile, historyFile, name string, proc int, seed uint64) error {
	b, err := os.ReadFile(workFile)
	if err != nil {
		return err
	}
	var w work
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	out, err := os.OpenFile(historyFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	s, err := open(ctx, cluster, name, log)
	if err != nil {
		return err
	}
	defer s.close()
	sdk, err := openSDK(ctx, cluster, w.Dir+"/"+name)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the driver closes it
		close(stop)
	}()
	notes := &notes{out: out}
	var done sync.WaitGroup
	var last *worker
	for i, step := range []func(*worker){(*worker).blocks, (*worker).blocks, (*worker).sdkFile, (*worker).readNames, (*worker).changeNames} {
		last = &worker{session: s, work: &w, sdk: sdk, notes: notes, id: workersMax*proc + i,
			rng: rand.New(rand.NewPCG(seed, uint64(workersMax*proc+i))), cluster: cluster, log: log}
		k := last
		done.Go(func() { k.until(stop, step) })
	}
	done.Wait()
	last.endNames()
	cctx, ccancel := context.WithTimeout(context.Background(), askShort)
	defer ccancel()
	_ = sdk.close(cctx) // what has no answer may be lost with it
	notes.mu.Lock()
	defer notes.mu.Unlock()
	return errors.Join(notes.errs...)
}

// notes is where the workers of a process note what they asked and were told.
// A change is noted before it is asked for, as one without an answer, and
// again with its answer: the file is whole whenever the process is killed.
type notes struct {
	mu         sync.Mutex
	out        io.Writer
	unanswered map[string]int // by key
	errs       []error
}

// unansweredMax is how many changes of a process may be without an answer, by
// key: above it the process only reads there, because each makes checking
// slower.
const unansweredMax = 4

func (n *notes) add(o *history.Op) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := history.Write(n.out, []history.Op{*o}); err != nil {
		n.errs = append(n.errs, err)
	}
}

// lost counts a change that got no answer.
func (n *notes) lost(o *history.Op) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unanswered == nil {
		n.unanswered = map[string]int{}
	}
	n.unanswered[o.Key]++
}

// full tells whether a key has enough changes without an answer.
func (n *notes) full(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unanswered[key] >= unansweredMax
}

// wrong notes what can not be, history or not.
func (n *notes) wrong(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.errs = append(n.errs, err)
}

// sdkFile is a file of one client, used through the SDK.
type sdkFile struct {
	client *client.Client
	volume *client.Volume
	name   string
}

func openSDK(ctx context.Context, cluster, name string) (*sdkFile, error) {
	c, err := client.Dial(ctx, cluster)
	if err != nil {
		return nil, err
	}
	v, err := c.Volume(ctx, volume)
	if err != nil {
		return nil, err
	}
	return &sdkFile{client: c, volume: v, name: name}, nil
}

func (s *sdkFile) close(ctx context.Context) error { return s.client.Close(ctx) }

// write writes a value and waits until it is on disks: open, write, sync,
// close.
func (s *sdkFile) write(ctx context.Context, b []byte) (err error) {
	f, err := s.volume.WithContext(ctx).OpenFile(s.name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// read opens the file and reads its only block into b; an empty file reads as
// zeros.
func (s *sdkFile) read(ctx context.Context, b []byte) error { return s.readAt(ctx, b, 0) }

// readAt is read of the block at an offset.
func (s *sdkFile) readAt(ctx context.Context, b []byte, off int64) (err error) {
	f, err := s.volume.WithContext(ctx).OpenFile(s.name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) && (n == 0 || n == len(b)) {
		return nil
	}
	return err
}

// now is the time of histories: one clock for all processes of a machine.
func now() int64 { return int64(clock.Real.Now()) }
