package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// limit is a control group that bounds the memory of the processes in it,
// the pages they caused to be cached included.
type limit struct {
	dir string
	v2  bool
}

// newLimit makes a control group of at most bytes; nil and the reason if this
// machine does not let us.
func newLimit(bytes uint64) (*limit, string) {
	name := fmt.Sprintf("ashlar-scale-%d", os.Getpid())
	size := strconv.FormatUint(bytes, 10)
	for _, l := range []*limit{
		{dir: filepath.Join("/sys/fs/cgroup/memory", name)},
		{dir: filepath.Join("/sys/fs/cgroup", name), v2: true},
	} {
		file := "memory.limit_in_bytes"
		if l.v2 {
			file = "memory.max"
		}
		if err := os.Mkdir(l.dir, 0o755); err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(l.dir, file), []byte(size), 0); err != nil {
			l.remove()
			continue
		}
		return l, ""
	}
	return nil, "no memory control group can be made here"
}

// enter moves this process into a control group; "" is none.
func enter(dir string) error {
	if dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// reclaims tells how often the group was at its limit.
func (l *limit) reclaims() string {
	name := "memory.failcnt"
	if l.v2 {
		name = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "max "); ok {
			return strings.TrimSpace(s)
		}
	}
	return strings.TrimSpace(string(b))
}

// remove removes the group; its processes must be gone.
func (l *limit) remove() { _ = syscall.Rmdir(l.dir) }

// memory reads one of the Vm lines of a process, in bytes.
func memory(pid int, what string) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(what+":")); ok {
			f := strings.Fields(string(rest))
			if len(f) != 2 || f[1] != "kB" {
				break
			}
			kb, err := strconv.ParseUint(f[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no %s of process %d", what, pid)
}
