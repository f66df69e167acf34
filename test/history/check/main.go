// Command check tells whether histories that were recorded can be true: whether
// there is an order in which everything that clients were told is so.
//
//	go run ./test/history/check FILE...              the files are one history
//	go run ./test/history/check -pages DIR FILE...   also a page of every part
//	go run ./test/history/check -key tree2 FILE...   one block or tree of it
//
// The files of all processes that worked on the same things belong together.
// Each block and each tree of names is a part with a verdict of its own, a line
// each: true, untrue, or undecided in time. Of a part that is untrue it is told
// how far the longest order that was found goes and what it can not explain.
// -pages writes, of every part, a page that shows who asked what when and that
// order, the same as text, and the part as a history.
//
// Exit status: 0 if all of it can be true, 1 if some part can not, 2 if none
// is untrue and some are undecided, 3 if a file does not read or the command
// line is wrong.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ashlarfs/ashlar/test/history"
)

// The exit statuses.
const (
	allTrue   = 0
	untrue    = 1
	undecided = 2
	badInput  = 3
)

// options say what is checked and what is shown of it.
type options struct {
	pages   string
	key     string
	timeout time.Duration
	files   []string
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	var o options
	f := flag.NewFlagSet("check", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&o.pages, "pages", "", "write a page, a text and a history of every part below this directory")
	f.StringVar(&o.key, "key", "", "check this block or tree alone")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to look for an order, for each part")
	f.Usage = func() {
		fmt.Fprintln(errs, "usage: check [-key KEY] [-timeout TIME] [-pages DIR] FILE...")
		f.PrintDefaults()
	}
	if f.Parse(args) != nil {
		return badInput
	}
	if o.files = f.Args(); len(o.files) == 0 {
		f.Usage()
		return badInput
	}
	status, err := check(&o, out)
	if err != nil {
		fmt.Fprintln(errs, "check:", err)
		return badInput
	}
	return status
}

// check checks the history that the files are and says so.
func check(o *options, out io.Writer) (int, error) {
	parts, err := read(o)
	if err != nil {
		return 0, err
	}
	counts := map[history.Verdict]int{}
	ops := 0
	for _, p := range parts {
		p.Decide(o.timeout)
		counts[p.Verdict]++
		ops += len(p.Ops)
		fmt.Fprintf(out, "%-9s  %s, %d operations\n", p.Verdict, p.Key, len(p.Ops))
		if p.Verdict != history.True {
			fmt.Fprint(out, p.Stuck())
		}
		if o.pages == "" {
			continue
		}
		text, err := p.Explain(o.pages)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(out, "           see %s and the page beside it\n", text)
	}
	fmt.Fprintf(out, "%d parts, %d operations: %d true, %d untrue, %d undecided in %v\n",
		len(parts), ops, counts[history.True], counts[history.Untrue], counts[history.Undecided], o.timeout)
	switch {
	case counts[history.Untrue] > 0:
		return untrue, nil
	case counts[history.Undecided] > 0:
		return undecided, nil
	}
	return allTrue, nil
}

// read reads the files and divides what they say.
func read(o *options) ([]*history.Part, error) {
	var ops []history.Op
	for _, name := range o.files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		part, err := history.ReadNotes(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ops = append(ops, part...)
	}
	parts, err := history.Divide(ops)
	if err != nil {
		return nil, err
	}
	if o.key != "" {
		var chosen []*history.Part
		for _, p := range parts {
			if p.Key == o.key {
				chosen = append(chosen, p)
			}
		}
		if len(chosen) == 0 {
			return nil, fmt.Errorf("no operation is on %q; keys are such as %q", o.key, keys(parts))
		}
		return chosen, nil
	}
	if len(parts) == 0 {
		return nil, errors.New("there is no operation in these files")
	}
	return parts, nil
}

// keysShown is how many keys are named where there is none of the kind.
const keysShown = 8

func keys(parts []*history.Part) (out []string) {
	for _, p := range parts[:min(len(parts), keysShown)] {
		out = append(out, p.Key)
	}
	return out
}
