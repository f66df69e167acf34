package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestAnUpgradeNodeByNodeStopsNobody is docs/operations/upgrade.md: every node
// is stopped in order and started again, the leader last, while a program
// writes and reads back without an error.
func TestAnUpgradeNodeByNodeStopsNobody(t *testing.T) {
	c := start(t)
	c.redundant()
	ctx, stop := context.WithCancel(c.ctx)
	var work sync.WaitGroup
	var rounds int
	var failed error
	work.Go(func() {
		for ; ctx.Err() == nil && failed == nil; rounds++ {
			failed = writeAndRead(filepath.Join(c.mnt, "upgraded"), rounds)
		}
	})
	defer func() {
		stop()
		work.Wait()
		if failed != nil || rounds == 0 {
			t.Errorf("after %d rounds the program failed: %v", rounds, failed)
		}
		t.Logf("the program made %d rounds", rounds)
	}()
	leader := c.leader()
	for _, name := range []string{other(leader, 0), other(leader, 1), leader} {
		step(t, "restart "+name, func() {
			out, _ := c.told("why", "--if-lost", name)
			for _, bad := range []string{"would be gone", "would not be served", "would stand still"} {
				if strings.Contains(out, bad) {
					t.Fatalf("the others do not suffice without %s:\n%s", name, out)
				}
			}
			c.stopNode(name)
			c.restart(name)
			c.redundant()
		})
	}
}

// stopNode ends a node in order, as a service manager does.
func (c *cluster) stopNode(name string) {
	c.t.Helper()
	pid := func() int {
		for _, n := range c.devStatus().Nodes {
			if n.Name == name {
				return n.PID
			}
		}
		return 0
	}
	if err := syscall.Kill(pid(), syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	c.poll(name+" has stopped", func() bool { return pid() == 0 })
}

// writeAndRead replaces a file and reads it back.
func writeAndRead(name string, round int) error {
	want := bytes.Repeat([]byte(fmt.Sprintf("round %d\n", round)), 4096)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(want)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	got, err := os.ReadFile(name)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("round %d: read %d bytes that were not written", round, len(got))
	}
	return err
}
