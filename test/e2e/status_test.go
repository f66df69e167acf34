package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/faults"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// statusMax bounds how long status may take, whatever is wrong.
const statusMax = 15 * time.Second

// told runs an ashlar command and returns what it printed and its exit status.
func (c *cluster) told(args ...string) (string, int) {
	c.t.Helper()
	began := time.Now()
	out, err := c.try(args...)
	if took := time.Since(began); took > statusMax {
		c.t.Errorf("ashlar %s took %v", strings.Join(args, " "), took)
	}
	code := 0
	var e *exec.ExitError
	if errors.As(err, &e) {
		code = e.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	return string(out), code
}

// anyStatus is for says: the exit status does not matter.
const anyStatus = -1

// says waits until status ends with a status and says all of this.
func (c *cluster) says(code int, wants ...string) {
	c.t.Helper()
	missing, last := "", ""
	got := -1
	defer func() {
		if c.t.Failed() {
			c.t.Logf("exit status %d, want %d; %q is missing; the last status was\n%s", got, code, missing, last)
		}
	}()
	c.poll("status says "+strings.Join(wants, "; "), func() bool {
		last, got = c.told("status")
		missing = ""
		for _, w := range wants {
			if !strings.Contains(last, w) {
				missing = w
				return false
			}
		}
		return code == anyStatus || got == code
	})
}

// why waits until ashlar why says this.
func (c *cluster) why(want string, args ...string) {
	c.t.Helper()
	last := ""
	defer func() {
		if c.t.Failed() {
			c.t.Logf("why %s said\n%s", strings.Join(args, " "), last)
		}
	}()
	c.poll("why "+strings.Join(args, " ")+" says "+want, func() bool {
		out, code := c.told(append([]string{"why"}, args...)...)
		last = out
		return code == 0 && strings.Contains(out, want)
	})
}

// well waits until there is nothing to say, in words and as data.
func (c *cluster) well() {
	c.t.Helper()
	c.ashlar("status", "--wait", "--timeout", readyTimeout.String())
	c.poll("nothing is wrong", func() bool {
		out, code := c.told("status", "-json")
		var st wire.Status
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			c.t.Fatalf("%v in\n%s", err, out)
		}
		ok := code == 0 && st.Health == "ok" && st.Redundant && len(st.Problems) == 0
		for _, n := range st.Nodes {
			ok = ok && n.State == "up"
		}
		for _, d := range st.Disks {
			ok = ok && d.State == "ok" && d.Age >= 0
		}
		for _, m := range st.Masters {
			ok = ok && m.Alive
		}
		return ok
	})
}

// diskOf is the number of a node's disk.
func (c *cluster) diskOf(node string) string {
	c.t.Helper()
	id := ""
	c.poll("there is a status", func() bool {
		st, _ := c.status()
		for _, d := range st.Disks {
			if d.Node == node {
				b, err := json.Marshal(d.ID)
				id = string(b)
				return err == nil
			}
		}
		return false
	})
	return id
}

// holder is the node that does not lead and holds the most data, with its
// disk: what a disk held is elsewhere after it failed, was full or drained.
func (c *cluster) holder() (node, disk, path string) {
	c.t.Helper()
	leader, most := c.leader(), 0
	c.poll("somebody holds data", func() bool {
		st, _ := c.status()
		for _, d := range st.Disks {
			if d.Node != leader && d.Groups > most {
				node, disk, path, most = d.Node, fmt.Sprint(d.ID), d.Path, d.Groups
			}
		}
		return most >= 8
	})
	return node, disk, path
}

// startFaulty starts a cluster whose disks obey what fault sets: the lines of
// docs/testing.md.
func startFaulty(t *testing.T) (c *cluster, fault func(lines ...string)) {
	t.Helper()
	rules := filepath.Join(t.TempDir(), "faults")
	fault = func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fault()
	t.Setenv(faults.Env, rules)
	c = start(t)
	c.well()
	return c, fault
}

// write makes a file in the mount.
func (c *cluster) write(name string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.mnt, name), bytes.Repeat([]byte(name), 64<<10/len(name)), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func TestStatusTellsTheTruth(t *testing.T) {
	c, fault := startFaulty(t)
	c.write("file")
	c.why("all 2 copies are there", filepath.Join(c.mnt, "file"))
	c.why("all 2 copies are there", "main:/file")

	victim := other(c.leader(), 0)
	disk := c.diskOf(victim)
	step(t, "a node is paused", func() {
		c.dev("pause", victim)
		c.says(anyStatus, "node "+victim+" has been silent for", ": its copies may be out of reach")
		c.says(5, "health: at risk", "node "+victim+" is down for", "have one copy left", "its data is copied elsewhere in", "for instance: ashlar why pg")
		c.why("is down for", "node", victim)
		c.dev("resume", victim)
		c.well()
	})
	step(t, "a node is killed", func() {
		c.dev("kill", victim)
		c.says(5, "health: at risk", "node "+victim+" is down for", "master "+victim+" does not answer", "2 of 3 masters are up")
		c.why("the masters would stand still: 1 of 3 would be left", "--if-lost", other(c.leader(), 1))
		c.why("another copy is made in", "disk", disk)
		c.dev("start", victim)
		c.well()
	})
	step(t, "the leader is killed", func() {
		leader := c.leader()
		c.dev("kill", leader)
		c.says(5, "health: at risk", "node "+leader+" is down for", "have one copy left")
		c.dev("start", leader)
		c.well()
	})
	step(t, "a majority of masters is gone", func() {
		leader := c.leader()
		a, b := other(leader, 0), other(leader, 1)
		c.dev("kill", a)
		c.dev("kill", b)
		c.says(4, "health: unknown", "1 of 3 masters answer, 2 are needed", "start ")
		c.dev("start", a)
		c.dev("start", b)
		c.well()
	})
	step(t, "a disk is full", func() {
		victim, disk, path := c.holder()
		fault("disk " + path + " free 1MiB") // the reserve is left, which its own records need
		c.says(0, "health: degraded", "disk "+disk+" ("+path+" on "+victim+") is full", "ashlar why disk "+disk)
		c.why("it serves, but has no room", "disk", disk)
		fault()
		c.well()
	})
}
