package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// someLocks is a list as the masters give it: what is held, then who waits.
func someLocks() []wire.LockStatus {
	file := func(waiting bool, class wire.LockClass, t wire.LockType, start, end uint64) wire.LockStatus {
		l := wire.Lock{Inode: ashlar.Inode(1<<52 | 9), Class: class, Type: t, Owner: 7, Start: start, End: end, PID: 42}
		return wire.LockStatus{Path: "main:/f", Lock: l, Waiting: waiting, Session: 3, Client: "h:/mnt", Since: 1e9}
	}
	return []wire.LockStatus{
		{Name: "n", Mode: wire.PR, Value: []byte("v"), Session: 2, Client: "h:1", Holder: 5, Since: 1e9},
		file(false, wire.LockPOSIX, wire.Shared, 0, 99),
		file(false, wire.LockOFD, wire.Exclusive, 100, wire.LockEnd),
		file(false, wire.LockFlock, wire.Exclusive, 0, wire.LockEnd),
		{Path: "", Lock: wire.Lock{Inode: 10, Class: wire.LockPOSIX, Type: wire.Shared, End: wire.LockEnd}, Session: 3, Since: 1e9},
		{Name: "n", Mode: wire.EX, Waiting: true, Session: 4, Client: "h:2", Since: 1e9},
		file(true, wire.LockPOSIX, wire.Exclusive, 0, 0),
	}
}

func TestAListOfLocksShowsOwnersAndWaitersOfEverySort(t *testing.T) {
	var entries []lockEntry
	for _, s := range someLocks() {
		entries = append(entries, entryOfLock(&s))
	}
	entries = besideEachOther(entries)
	var out bytes.Buffer
	printLocks(&global{stdio: stdio{Out: &out}}, entries)
	since := time.Unix(1, 0).Local().Format(time.DateTime)
	want := []string{
		"LOCK KIND MODE BYTES STATE BY SESSION PID SINCE VALUE",
		`n name PR held h:1 2 SINCE "v" (not valid)`,
		"n name EX waits h:2 4 SINCE",
		"main:/f posix shared 0-99 held h:/mnt 3 42 SINCE",
		"main:/f ofd exclusive 100- held h:/mnt 3 42 SINCE",
		"main:/f flock exclusive held h:/mnt 3 42 SINCE",
		"main:/f posix exclusive 0-0 waits h:/mnt 3 42 SINCE",
		"(removed) posix shared all held 3 SINCE",
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(strings.ReplaceAll(line, since, "SINCE")), " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestALockInJSONSaysWhatItIs(t *testing.T) {
	for i, want := range map[int]string{
		0: `{"lock":"n","kind":"name","mode":"PR","waiting":false,"session":2,"client":"h:1","owner":5,"since":"1970-01-01T00:00:01Z","value":"dg==","value_valid":false}`,
		2: `{"lock":"main:/f","kind":"ofd","mode":"exclusive","inode":4503599627370505,"start":100,"waiting":false,"session":3,"client":"h:/mnt","pid":42,"owner":7,"since":"1970-01-01T00:00:01Z"}`,
		6: `{"lock":"main:/f","kind":"posix","mode":"exclusive","inode":4503599627370505,"end":0,"waiting":true,"session":3,"client":"h:/mnt","pid":42,"owner":7,"since":"1970-01-01T00:00:01Z"}`,
	} {
		got, err := json.Marshal(entryOfLock(&someLocks()[i]))
		if err != nil || string(got) != want {
			t.Errorf("lock %d: %s\nwant %s (%v)", i, got, want, err)
		}
	}
}

func TestLocksAreAskedForInWordsThatAreChecked(t *testing.T) {
	for _, c := range []struct {
		mode, timeout string
		want          time.Duration
		ok            bool
	}{
		{"ex", "", -1, true}, {"PR", "0", 0, true}, {"CW", "1m", time.Minute, true},
		{"XX", "", 0, false}, {"", "", 0, false}, {"EX", "-1s", 0, false}, {"EX", "5", 0, false},
	} {
		o := lockOptions{mode: c.mode, timeout: c.timeout}
		mode, wait, err := o.parse()
		if (err == nil) != c.ok || c.ok && (wait != c.want || mode.String() != strings.ToUpper(c.mode)) {
			t.Errorf("%q %q: %v %v %v", c.mode, c.timeout, mode, wait, err)
		}
		if err != nil && exitOf(err) != exitUsage {
			t.Errorf("%q %q: status %d", c.mode, c.timeout, exitOf(err))
		}
	}
}
