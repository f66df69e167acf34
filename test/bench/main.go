// Command bench runs a fixed set of work on mounted file systems in one run,
// in turn, and prints a table of medians and ratios: a plain local directory,
// a three-node cluster of Ashlar, and MooseFS and GlusterFS with two copies
// where their packages are installed. `make bench` runs it; docs/performance.md says what
// the figures mean. It exits with 1 if a bar is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type options struct {
	bin     string
	dir     string
	reps    int
	size    int64
	files   int
	small   int
	run     time.Duration
	targets string
	phases  string
	keep    bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/ashlar", "the ashlar binary")
	flag.StringVar(&o.dir, "dir", "", "where everything is kept (default: a new temporary directory)")
	flag.IntVar(&o.reps, "reps", 3, "repetitions of each target, interleaved")
	flag.Int64Var(&o.size, "size", 1<<30, "bytes of the data file")
	flag.IntVar(&o.files, "files", 10000, "files of the metadata figures")
	flag.IntVar(&o.small, "small", 2000, "files of 16 KiB")
	flag.DurationVar(&o.run, "time", 4*time.Second, "length of each random I/O figure")
	flag.StringVar(&o.targets, "targets", "local,ashlar,moosefs,gluster", "what to measure, in this order")
	flag.StringVar(&o.phases, "phases", "", "parts of the work, of seq,rand,meta,small,tree (default: all; rand needs seq)")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.dir == "" {
		d, err := os.MkdirTemp("", "ashlar-bench")
		if err != nil {
			return err
		}
		o.dir = d
		if !o.keep {
			defer os.RemoveAll(d)
		}
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	tree, err := archive(o.dir)
	if err != nil {
		return err
	}
	var targets []target
	var names []string
	for _, n := range strings.Split(o.targets, ",") {
		root := filepath.Join(o.dir, n)
		switch n {
		case "local":
			targets = append(targets, &local{root})
		case self:
			targets = append(targets, &ashlarTarget{bin: bin, root: root})
		case "moosefs":
			if !installed("MooseFS", moosefsPrograms) {
				continue
			}
			targets = append(targets, &moosefs{root: root})
		case "gluster":
			if !installed("GlusterFS", glusterPrograms) {
				continue
			}
			targets = append(targets, &gluster{root: root})
		default:
			return fmt.Errorf("unknown target %q; there are local, ashlar, moosefs and gluster", n)
		}
		names = append(names, n)
	}
	for _, t := range targets {
		defer t.stop()
		if err := t.start(ctx); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	var res results
	for rep := range o.reps {
		for _, t := range targets {
			fmt.Fprintf(os.Stderr, "bench: round %d of %d: %s\n", rep+1, o.reps, t.name())
			w := &workload{
				dir: t.dir(), client: t.client, size: o.size, files: o.files, small: o.small, run: o.run, tar: tree,
				cold: func() error {
					syscall.Sync()
					if err := t.remount(ctx); err != nil {
						return err
					}
					return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
				},
			}
			if err := w.do(o.phases); err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
			res.add(t.name(), w.out)
		}
	}
	res.print(os.Stdout, names)
	if missed := res.missed(); len(missed) > 0 {
		return fmt.Errorf("%d bars missed:\n  %s", len(missed), strings.Join(missed, "\n  "))
	}
	return nil
}

// installed tells whether a peer's programs are there, and says so if not.
func installed(peer string, programs []string) bool {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s is not installed; leaving it out (scripts/deps.sh peers installs it)\n", peer)
			return false
		}
	}
	return true
}

// archive makes a tar file of 2,000 files of the Go source tree.
func archive(dir string) (string, error) {
	src := filepath.Join(runtime.GOROOT(), "src")
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		src = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	var list strings.Builder
	n := 0
	for _, top := range []string{"cmd/compile", "cmd/go", "crypto"} {
		err := filepath.WalkDir(filepath.Join(src, top), func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || n >= 2000 {
				return err
			}
			rel, err := filepath.Rel(src, p)
			list.WriteString(rel + "\n")
			n++
			return err
		})
		if err != nil {
			return "", err
		}
	}
	out := filepath.Join(dir, "tree.tar")
	c := exec.Command("tar", "cf", out, "-C", src, "-T", "-")
	c.Stdin = strings.NewReader(list.String())
	if b, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %v: %s", err, b)
	}
	return out, nil
}
