package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An error of an application fails the round unless a fault of the round
// explains it.
func TestErrorsOfApplicationsAreJudged(t *testing.T) {
	base := time.Now().Add(-time.Minute)
	at := func(seconds float64) int64 { return toNow(base.Add(time.Duration(seconds * float64(time.Second)))) }
	fault := func(line string) window {
		t.Helper()
		f, err := parseFault(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		return window{f, at(f.At.Seconds()), at((f.At + f.For).Seconds())}
	}
	const lost = `time=%s level=WARN msg="session lost" session=7` + "\n"
	for _, c := range []struct {
		what  string
		fault string
		lost  float64 // when the session was, 0 for never
		errno syscall.Errno
		when  float64
		ok    bool
	}{
		{"the mount is killed", "10s kill m1 2s", 0, syscall.ENOTCONN, 11, true},
		{"the mount was killed long ago", "10s kill m1 2s", 0, syscall.ENOTCONN, 30, false},
		{"the mount was killed and is not back yet", "10s kill m1 2s", 0, syscall.ENOENT, 18, true},
		{"a node is killed", "10s kill n1 2s", 0, syscall.EIO, 11, false},
		{"a disk is full", "10s disk n1 chunks full 2s", 0, syscall.ENOSPC, 11, true},
		{"a disk is full and says something else", "10s disk n1 chunks full 2s", 0, syscall.EIO, 11, false},
		{"a disk of metadata is full", "10s disk n1 data full 2s", 0, syscall.ENOSPC, 11, false},
		{"a disk fails", "10s disk n1 chunks write 2s", 0, syscall.EIO, 11, false},
		{"nothing happened", "10s cut n1 n2 2s", 0, syscall.EIO, 11, false},
		{"the session is lost", "10s cut n1 clients 5s", 14, syscall.EIO, 14.5, true},
		{"the session is lost and no space is left", "10s cut n1 clients 5s", 14, syscall.ENOSPC, 14.5, false},
		{"the session was lost long ago", "10s cut n1 clients 5s", 14, syscall.EIO, 30, false},
		{"the paused mount lost its session", "10s pause m1 6s", 16.1, syscall.EIO, 16.2, true},
		{"a session was lost because a node died", "10s kill n1 5s", 14, syscall.EIO, 14.5, false},
		{"a session was lost because a node was paused", "10s pause n1 5s", 14, syscall.EIO, 14.5, false},
	} {
		dir := t.TempDir()
		r := &round{dir: dir, began: base, windows: []window{fault(c.fault)}}
		r.c = &cluster{mount: &mount{log: filepath.Join(dir, "mount.log"), back: []time.Time{base.Add(9 * time.Second), base.Add(17 * time.Second)}}}
		log := ""
		if c.lost > 0 {
			log = fmt.Sprintf(lost, base.Add(time.Duration(c.lost*float64(time.Second))).UTC().Format(time.RFC3339Nano))
		}
		line := fmt.Sprintf(`{"op":"write","error":"%v","errno":%d,"call":%d,"return":%d}`+"\n", c.errno, int(c.errno), at(c.when), at(c.when+0.1))
		for name, text := range map[string]string{"mount.log": log, "errors": line} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.judge(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// What applications note is what they were told: on a directory of the local
// disk everything must be right, and where nothing is, an error.
func TestApplicationsNoteWhatTheyWereTold(t *testing.T) {
	needsRoot(t) // files of other users are made
	dir := t.TempDir()
	for _, name := range []string{namesDir, appFile(0), appFile(1)} {
		var err error
		if name == namesDir {
			err = os.Mkdir(filepath.Join(dir, name), 0o777)
			if err == nil {
				err = os.Chmod(filepath.Join(dir, name), 0o777)
			}
		} else {
			err = os.WriteFile(filepath.Join(dir, name), nil, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(at string) (r *round, notes *notes) {
		t.Helper()
		r = &round{dir: t.TempDir()}
		a, done := testApp(t, at, r)
		for range 300 {
			_ = a.step() // noted
			_ = a.changeNames()
		}
		a.readAll()
		done()
		return r, a.notes
	}
	r, n := run(dir)
	if err := r.check(); err != nil || len(n.errs) > 0 || r.answered < 600 || r.answered != r.ops {
		t.Errorf("%d of %d operations answered: %v, %v", r.answered, r.ops, err, n.errs)
	}
	if b, err := os.ReadFile(r.file("errors")); err != nil || len(b) > 0 {
		t.Errorf("errors: %s, %v", b, err)
	}
	r, _ = run(filepath.Join(dir, "nothing"))
	if err := r.check(); err == nil {
		t.Error("where nothing is something was answered")
	}
	if b, err := os.ReadFile(r.file("errors")); err != nil || strings.Count(string(b), "\n") < 600 {
		t.Errorf("errors: %s, %v", b, err)
	}
}

// testApp is one application that works in a directory and notes in a round's.
func testApp(t *testing.T, dir string, r *round) (a *app, done func()) {
	t.Helper()
	var out [2]*os.File
	for i, name := range []string{"history-1", "errors"} {
		var err error
		if out[i], err = os.Create(r.file(name)); err != nil {
			t.Fatal(err)
		}
	}
	a = &app{dir: dir, key: mountName, notes: &notes{out: out[0]}, errs: json.NewEncoder(out[1]), errsMu: &sync.Mutex{}, id: 8,
		file: appFile(0), rng: rand.New(rand.NewPCG(1, 1))}
	return a, func() {
		for _, f := range out {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
