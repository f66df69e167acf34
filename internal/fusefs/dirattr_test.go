package fusefs

import (
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
)

// A directory as the leader answers it.
func directory(ctime int64) *ashlar.Attr {
	return &ashlar.Attr{Inode: 7, Type: ashlar.TypeDir, Nlink: 2, Mtime: ctime, Ctime: ctime}
}

func keeping(t *testing.T, ctime int64) *dirAttrs {
	t.Helper()
	c := &dirAttrs{timeout: time.Hour}
	c.done(c.change(7), 5)
	c.answered(c.ask(7), directory(ctime))
	if a, left, ok := c.get(7); !ok || a.Ctime != ctime || left <= 0 || left > time.Hour {
		t.Fatalf("%v %v %v", a, left, ok)
	}
	return c
}

func TestADirectoryIsRememberedWithTheTimesOfChangesMadeHere(t *testing.T) {
	c := keeping(t, 10)
	c.done(c.change(7), 20)
	first, second := c.change(7), c.change(7)
	c.done(second, 40)
	c.done(first, 30) // answered later, made earlier
	if a, _, ok := c.get(7); !ok || a.Mtime != 40 || a.Ctime != 40 || a.Nlink != 2 {
		t.Fatalf("%+v %v", a, ok)
	}
}

func TestADirectoryIsForgottenWhenItIsNotKnownWhatBecameOfIt(t *testing.T) {
	for name, change := range map[string]func(c *dirAttrs){
		"a change that failed, or of a directory": func(c *dirAttrs) { c.done(c.change(7), 0) },
		"its own attributes were changed":         func(c *dirAttrs) { c.forget(7) },
		"somebody else changed it":                func(c *dirAttrs) { c.saw(directory(11)) },
		"time has passed":                         func(c *dirAttrs) { c.m[7].until = time.Now().Add(-1) },
	} {
		c := keeping(t, 10)
		change(c)
		if a, _, ok := c.get(7); ok {
			t.Errorf("%s: still %+v", name, a)
		}
	}
	c := keeping(t, 10)
	c.saw(directory(10))
	if _, _, ok := c.get(7); !ok {
		t.Error("forgotten for being what was known")
	}
}

func TestAnAnswerThatAChangeOvertookIsNotRemembered(t *testing.T) {
	for name, overtake := range map[string]func(c *dirAttrs) func(){
		"begun before, ended after": func(c *dirAttrs) func() {
			d := c.change(7)
			return func() { c.done(d, 20) }
		},
		"begun and ended meanwhile": func(c *dirAttrs) func() {
			c.done(c.change(7), 20)
			return func() {}
		},
		"attributes set meanwhile": func(c *dirAttrs) func() {
			c.forget(7)
			return func() {}
		},
	} {
		c := &dirAttrs{timeout: time.Hour}
		c.done(c.change(7), 5)
		q := c.ask(7)
		after := overtake(c)
		c.answered(q, directory(10))
		after()
		if a, _, ok := c.get(7); ok {
			t.Errorf("%s: remembered %+v", name, a)
		}
	}
}

func TestWithoutATimeoutNoDirectoryIsRemembered(t *testing.T) {
	c := &dirAttrs{}
	c.done(c.change(7), 5)
	c.answered(c.ask(7), directory(10))
	if a, _, ok := c.get(7); ok {
		t.Fatalf("%+v", a)
	}
}

func TestFewDirectoriesAreRemembered(t *testing.T) {
	c := &dirAttrs{timeout: time.Hour}
	for i := range 2 * dirAttrsMax {
		c.done(c.change(ashlar.Inode(i)), 5)
	}
	if len(c.m) > dirAttrsMax {
		t.Fatal(len(c.m))
	}
}
