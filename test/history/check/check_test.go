package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar/test/history"
)

func TestAHistorysVerdictIsTheExitStatus(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, ops ...history.Op) string {
		t.Helper()
		var b strings.Builder
		if err := history.Write(&b, ops); err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(b.String()+`{"client":3,"ki`), 0o600); err != nil { // it was killed
			t.Fatal(err)
		}
		return name
	}
	make1 := file("1", history.Op{Kind: history.Mkdir, Key: "tree0", Call: 1, Return: 2, Name: "x", Value: 8},
		history.Op{Kind: history.Create, Key: "tree0", Call: 3, Return: history.Never, Dir: 8, Name: "a", Value: 1},
		history.Op{Kind: history.Create, Key: "tree0", Call: 3, Return: 4, Dir: 8, Name: "a", Value: 1})
	move := file("2", history.Op{Kind: history.Rename, Key: "tree0", Call: 5, Return: 6, Dir: 8, Name: "a", To: "b"},
		history.Op{Kind: history.BlockWrite, Key: "f0/1", Call: 5, Return: 6, Value: 9})
	moved := file("3", history.Op{Kind: history.Lookup, Key: "tree0", Call: 7, Return: 8, Name: "b", Value: 1, Links: 1})
	lost := file("4", history.Op{Kind: history.Lookup, Key: "tree0", Call: 7, Return: 8, Dir: 8, Name: "a", Value: 1, Links: 1})
	nothing := file("5")
	bad := filepath.Join(dir, "6")
	if err := os.WriteFile(bad, []byte("{\"kind\":\"fly\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pages := filepath.Join(dir, "pages")
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{make1 + " " + move + " " + moved, allTrue, "2 parts, 5 operations: 2 true, 0 untrue, 0 undecided"},
		{make1 + " " + move + " " + lost, untrue, "client 0 lookup tree0 8/a value 1 links 1"},
		{make1 + " " + move + " " + lost, untrue, "when there is\n  {/b 1, /x/ 8}"},
		{"-key f0/1 " + make1 + " " + move + " " + lost, allTrue, "1 parts, 1 operations: 1 true"},
		{"-key f0/2 " + move, badInput, `no operation is on "f0/2"; keys are such as ["f0/1" "tree0"]`},
		{"-pages " + pages + " " + make1 + " " + move, allTrue, filepath.Join(pages, "tree0.txt")},
		{"-timeout 1ns " + hard(file), undecided, "1 undecided in 1ns"},
		{nothing, badInput, "no operation"},
		{bad, badInput, `/6: history: line 1: no kind "fly"`},
		{filepath.Join(dir, "none"), badInput, "no such file"},
		{"", badInput, "usage:"},
		{"-fly", badInput, "-fly"},
	} {
		var out, errs strings.Builder
		status := run(strings.Fields(c.args), &out, &errs)
		if all := out.String() + errs.String(); status != c.status || !strings.Contains(all, c.says) {
			t.Errorf("check %s: status %d, want %d and %q\n%s", c.args, status, c.status, c.says, all)
		}
	}
	for _, name := range []string{"tree0.html", "tree0.txt", "tree0.history", "f0_1.html"} {
		if _, err := os.Stat(filepath.Join(pages, name)); err != nil {
			t.Error(err)
		}
	}
}

// hard makes a history that takes long to decide.
func hard(file func(string, ...history.Op) string) string {
	var ops []history.Op
	for i := range uint64(40) {
		ops = append(ops, history.Op{Client: int(i), Kind: history.BlockWrite, Key: "b", Return: history.Never, Value: i + 1})
	}
	ops = append(ops, history.Op{Kind: history.BlockRead, Key: "b", Call: 1, Return: 2, Value: 99})
	return file("hard", ops...)
}
