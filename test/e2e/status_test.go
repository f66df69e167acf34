package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// rotMax is how many chunks rot: fewer than what makes a disk be drained.
const rotMax = 5

// rot flips a bit in the last block of some chunks on a node's disk.
func (c *cluster) rot(node string) {
	c.t.Helper()
	flipped := 0
	err := filepath.WalkDir(filepath.Join(c.dir, node, "disk", "chunks"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || info.Size() < 16<<10 || flipped == rotMax {
			return err
		}
		var b [1]byte
		at := info.Size() - 4096
		if _, err := f.ReadAt(b[:], at); err != nil {
			return err
		}
		b[0] ^= 1
		_, err = f.WriteAt(b[:], at)
		flipped++
		return err
	})
	if err != nil || flipped == 0 {
		c.t.Fatalf("%d bits flipped on %s: %v", flipped, node, err)
	}
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

func TestStatusTellsTheTruth(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "faults")
	fault := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fault()
	t.Setenv(faults.Env, rules)
	c := start(t)
	c.well()
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(c.mnt, name), bytes.Repeat([]byte(name), 64<<10/len(name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file")
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
		fault("disk " + path + " full")
		c.says(0, "health: degraded", "disk "+disk+" ("+path+" on "+victim+") is full", "ashlar why disk "+disk)
		c.why("it serves, but has no room", "disk", disk)
		fault()
		c.well()
	})
	for _, f := range []string{"readonly", "any error"} {
		step(t, "a disk fails: "+f, func() {
			victim, disk, path := c.holder()
			fault("disk " + path + " " + f)
			for i := range 32 { // so that it is noticed: in several groups
				write(fmt.Sprint("other", i))
			}
			// Its copies are made elsewhere at once, so for how long one is left is
			// nobody's promise.
			c.says(anyStatus, "disk "+disk+" ("+path+" on "+victim+") failed: ", "ashlar disk remove "+disk)
			c.why("failed and is not used any more", "disk", disk)
			fault()
			c.dev("kill", victim)
			c.dev("start", victim)
			c.well()
		})
	}
	step(t, "writes take two copies, and there is one", func() {
		victim, disk, _ := c.holder()
		c.ashlar("pool", "set", "default", "--write-min", "2")
		c.dev("kill", victim)
		c.says(5, "health: unavailable", "take no writes: they have fewer copies than their pool's write-min", " read-only", "--write-min 1")
		c.why("fewer than write-min 2: reads are served, writes wait", "disk", disk)
		c.dev("start", victim)
		c.well()
		c.ashlar("pool", "set", "default", "--write-min", "1")
	})
	step(t, "repair is paused while a node returns", func() {
		victim, _, _ := c.holder()
		c.ashlar("repair", "pause", "default")
		c.dev("kill", victim)
		c.says(5, "its data is not copied elsewhere, because repair of pool default is paused", "node "+victim+" is down")
		write("third")
		c.dev("start", victim)
		c.says(5, "repair of pool default is paused", "repair is paused: ashlar repair resume")
		c.why("waiting (paused)", "node", victim)
		c.ashlar("repair", "resume", "default")
		c.well()
	})
	step(t, "bits rot", func() {
		victim, disk, _ := c.holder()
		write("rotten")
		c.rot(victim)
		c.told("disk", "scrub", "--wait")
		c.poll("the damage is counted, and mended", func() bool {
			st, _ := c.status()
			for _, d := range st.Disks {
				if d.Node == victim {
					return d.Damaged > 0 && d.Repaired == d.Damaged
				}
			}
			return false
		})
		c.why("of them mended", "disk", disk)
		c.well()
	})
	step(t, "a disk is drained", func() {
		victim, disk, path := c.holder()
		c.ashlar("disk", "drain", disk)
		c.says(0, "disk "+disk+" ("+path+" on "+victim+") is empty", "drained", "ashlar disk remove "+disk)
		c.ashlar("disk", "undrain", disk)
		c.well()
	})
}
