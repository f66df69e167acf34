package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// pingRates is how many rates, one a second, each process tells after all of
// them have been seen to count: the longer, the more would be found.
const pingRates = 2

// ping is a process of ctdb's ping_pong: it takes locks of single bytes in a
// circle, each before it gives up the one before, with -w counts at each and
// with -r tells by how much the number there has grown since it was here last.
type ping struct {
	cmd  *exec.Cmd
	errs bytes.Buffer
	read sync.WaitGroup

	mu         sync.Mutex
	increments []string // as it told of changes
	rates      []int
}

func (c *cluster) ping(flags, file string, locks int) *ping {
	c.t.Helper()
	p := &ping{cmd: exec.CommandContext(c.ctx, "ping_pong")}
	if flags != "" {
		p.cmd.Args = append(p.cmd.Args, flags)
	}
	p.cmd.Args = append(p.cmd.Args, file, fmt.Sprint(locks))
	p.cmd.Stderr = &p.errs
	out, err := p.cmd.StdoutPipe()
	c.must(err)
	c.must(p.cmd.Start())
	p.read.Go(func() { p.listen(out) })
	return p
}

// listen takes in what the process tells: lines that end in \n or \r.
func (p *ping) listen(out io.Reader) {
	s := bufio.NewScanner(out)
	s.Split(func(data []byte, _ bool) (int, []byte, error) {
		if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
			return i + 1, data[:i], nil
		}
		return 0, nil, nil
	})
	for s.Scan() {
		var n int
		p.mu.Lock()
		switch line := strings.TrimSpace(s.Text()); {
		case line == "":
		case scans(line, "%d locks/sec", &n):
			p.rates = append(p.rates, n)
		default: // "data increment = N", or a failure
			p.increments = append(p.increments, line)
		}
		p.mu.Unlock()
	}
}

func scans(line, format string, to *int) bool {
	_, err := fmt.Sscanf(line, format, to)
	return err == nil
}

// told returns what a process has told so far.
func (p *ping) told() (increments []string, rates []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.increments[:len(p.increments):len(p.increments)], p.rates[:len(p.rates):len(p.rates)]
}

// pingPong runs a process on each mount. Once every one counts by as many as
// there are, each must go on to do so: every other number is a lock that two
// held, or data that was not seen by the next holder.
func (c *cluster) pingPong(flags string, mounts []string) {
	c.t.Helper()
	name := "pingpong" + fmt.Sprint(len(mounts)) + flags
	want := fmt.Sprintf("data increment = %d", len(mounts))
	counts := strings.Contains(flags, "w") && strings.Contains(flags, "r")
	var all []*ping
	for _, dir := range mounts {
		all = append(all, c.ping(flags, filepath.Join(dir, name), len(mounts)+1))
	}
	defer func() {
		for _, p := range all {
			_ = p.cmd.Process.Kill() // it may have failed
			p.read.Wait()
			_ = p.cmd.Wait()
			if p.errs.Len() > 0 {
				c.t.Errorf("ping_pong %s: %s", flags, p.errs.String())
			}
		}
	}()
	began, first := make([]int, len(all)), make([]int, len(all)) // rates and changes told until then
	c.poll(name+": all count", func() bool {
		ok := true
		for i, p := range all {
			incs, rates := p.told()
			began[i], first[i] = len(rates), len(incs)
			ok = ok && (!counts || len(incs) > 0 && incs[len(incs)-1] == want)
		}
		return ok
	})
	c.poll(name+": each has told its rate", func() bool {
		ok := true
		for i, p := range all {
			incs, rates := p.told()
			ok = ok && len(rates) >= began[i]+pingRates
			if len(incs) > first[i] {
				c.t.Fatalf("%s, process %d: %s", name, i+1, strings.Join(incs, ", "))
			}
		}
		return ok
	})
	sum, n := 0, 0
	for i, p := range all {
		_, rates := p.told()
		for _, r := range rates[began[i]:] {
			sum, n = sum+r, n+1
		}
	}
	c.t.Logf("ping_pong %-4s on %d mounts: %d locks a second each, coherent", flags, len(mounts), sum/n)
}

// What ctdb asks of a cluster file system: its own test, on two and three
// mounts, with and without data, read and written or mapped.
func TestLocksPassPingPong(t *testing.T) {
	if _, err := exec.LookPath("ping_pong"); err != nil {
		if os.Getenv("ASHLAR_E2E") == "required" {
			t.Fatal("ctdb's ping_pong is not there; scripts/deps.sh installs it")
		}
		t.Skip(err)
	}
	c := start(t)
	c.freshMount(func(second string) {
		c.freshMount(func(third string) {
			for _, mounts := range [][]string{{c.mnt, second}, {c.mnt, second, third}} {
				for _, flags := range []string{"", "-rw", "-rwm"} {
					c.pingPong(flags, mounts)
				}
			}
		})
	})
}
