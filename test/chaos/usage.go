package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How far a process may grow from the end of one round to that of another.
const (
	filesMore    = 200
	routinesMore = 200
	memoryMore   = 256 << 20
	// What no process of such a cluster may have at all.
	filesMax    = 2000
	routinesMax = 2000
	memoryMax   = 1 << 30
)

// usage is what a process has.
type usage struct {
	files    int
	routines int
	memory   int // resident, bytes
}

func (u *usage) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d MiB", u.files, u.routines, u.memory>>20)
}

// measure looks at the process of a node.
func measure(n *node) (*usage, error) {
	proc := filepath.Join("/proc", strconv.Itoa(n.proc.Process.Pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, err
	}
	u := &usage{files: len(fds)}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return nil, err
	}
	for _, l := range strings.Split(string(status), "\n") {
		if kb, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			if _, err := fmt.Sscanf(kb, "%d kB", &u.memory); err != nil {
				return nil, fmt.Errorf("%q: %w", l, err)
			}
			u.memory <<= 10
		}
	}
	u.routines, err = routines(n)
	return u, err
}

// routines asks the profiling endpoint how many goroutines there are.
func routines(n *node) (total int, err error) {
	c := http.Client{Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + net.JoinHostPort(n.ip, pprofPort) + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	first, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(first, "goroutine profile: total %d", &total); err != nil {
		return 0, fmt.Errorf("%q: %w", first, err)
	}
	return total, nil
}

// grown says what is too much, compared with an earlier look at the same
// process, nil for none.
func (u *usage) grown(before *usage) error {
	if u.files > filesMax || u.routines > routinesMax || u.memory > memoryMax {
		return fmt.Errorf("it has %s", u)
	}
	if before != nil && (u.files > before.files+filesMore || u.routines > before.routines+routinesMore || u.memory > before.memory+memoryMore) {
		return fmt.Errorf("it had %s and has %s", before, u)
	}
	return nil
}
