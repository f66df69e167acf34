package posix

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// line is one line of a script: [USER] CALL ARGUMENTS [= RESULT].
type line struct {
	text string
	user string
	op   string
	args []string
	want string // ERRNO, ? for whatever the reference says, empty for success
}

// parse reads a line. Arguments may be quoted as in Go; <N> stands for N
// letters, <N/M> for a path of N bytes in parts of M.
func parse(text string) (l line, err error) {
	l.text = strings.TrimSpace(text)
	words, err := split(l.text)
	if err != nil {
		return l, err
	}
	if n := len(words); n >= 2 && words[n-2] == "=" {
		l.want, words = words[n-1], words[:n-2]
	}
	l.user = "root"
	if _, ok := users[words[0]]; ok {
		l.user, words = words[0], words[1:]
	}
	if len(words) == 0 {
		return l, fmt.Errorf("no call in %q", text)
	}
	l.op, l.args = words[0], words[1:]
	o, ok := ops[l.op]
	if !ok {
		return l, fmt.Errorf("no call %q", l.op)
	}
	if len(l.args) < o.args {
		return l, fmt.Errorf("%q takes %d arguments", l.op, o.args)
	}
	return l, nil
}

func split(s string) (words []string, err error) {
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		if s[0] == '#' {
			break
		}
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", s, err)
			}
			w, _ := strconv.Unquote(q)
			words, s = append(words, w), s[len(q):]
			continue
		}
		w, rest, _ := strings.Cut(s, " ")
		words, s = append(words, expand(w)), rest
	}
	return words, nil
}

// expand replaces <N> and <N/M>.
func expand(w string) string {
	before, rest, ok := strings.Cut(w, "<")
	inner, after, ok2 := strings.Cut(rest, ">")
	if !ok || !ok2 {
		return w
	}
	n, m, parts := strings.Cut(inner, "/")
	total, err := strconv.Atoi(n)
	if err != nil {
		return w
	}
	out := strings.Repeat("n", total)
	if parts {
		size, _ := strconv.Atoi(m)
		out = strings.Repeat(strings.Repeat("n", size)+"/", total/(size+1)+1)[:total]
	}
	return before + out + after
}

// result is what a call said: its errno, or ok and a value.
func (w *worker) run(l *line) (out string, err error) {
	w.do(func() {
		defer func() {
			switch r := recover().(type) {
			case nil:
			case errBadScript:
				err = r
			case interface{ Addr() uintptr }: // beyond the end of a mapped file
				out = "SIGBUS"
			default:
				panic(r)
			}
		}()
		w.become(users[l.user])
		value, e := ops[l.op].run(w, l.args)
		var errno unix.Errno
		switch {
		case e == nil:
			out = strings.TrimSpace("ok " + value)
		case errors.As(e, &errno):
			out = unix.ErrnoName(errno)
		default:
			err = e
		}
	})
	return out, err
}

// pair is the two trees.
type pair struct {
	ref, got       *worker
	refWas, gotWas *state
	comparison
}

// newPair makes an empty directory in each file system, and goes there.
func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{comparison: comparison{began: time.Now().UnixNano() - 1e9, told: map[string]bool{}}}
	for i, base := range []string{refDir(t), mountDir(t)} {
		dir, err := os.MkdirTemp(base, "posix-")
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		w, err := newWorker(dir, i == 0)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			p.ref = w
		} else {
			p.got = w
		}
		t.Cleanup(func() {
			w.close()
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
	}
	var err error
	if p.refWas, err = p.ref.state(); err == nil {
		p.gotWas, err = p.got.state()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *worker) state() (s *state, err error) {
	w.do(func() {
		s = &state{}
		s.seen, s.targets, err = w.snapshot()
	})
	return s, err
}

// step makes one call in both trees and returns how they differ then.
func (p *pair) step(l *line) (diff string, err error) {
	tick()
	want, err := p.ref.run(l)
	if err != nil {
		return "", fmt.Errorf("%s: reference: %w", l.text, err)
	}
	switch {
	case l.want == "?":
	case l.want == "" && !strings.HasPrefix(want, "ok"):
		return "", fmt.Errorf("%s: the reference says %s", l.text, want)
	case l.want != "" && l.want != want && "ok "+l.want != want:
		return "", fmt.Errorf("%s: the reference says %s", l.text, want)
	}
	have, err := p.got.run(l)
	if err != nil {
		return "", fmt.Errorf("%s: ashlar: %w", l.text, err)
	}
	if want != have {
		diff = fmt.Sprintf("  reference %s\n  ashlar    %s\n", want, have)
	}
	ref, err := p.ref.state()
	if err != nil {
		return "", fmt.Errorf("after %s: reference: %w", l.text, err)
	}
	got, err := p.got.state()
	if err != nil {
		return diff + fmt.Sprintf("  looking at it: %v\n", err), nil
	}
	diff += p.compare(ref, got, p.refWas, p.gotWas)
	p.refWas, p.gotWas = ref, got
	return diff, nil
}

// story is a case of a family.
type story struct {
	name  string
	lines []line
	at    []int // in the file
}

// stories reads a family: "case NAME", then its lines.
func stories(t testing.TB, file string) (out []*story) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		name, ok := strings.CutPrefix(text, "case ")
		switch {
		case text == "" || text[0] == '#':
		case ok:
			out = append(out, &story{name: name})
		case len(out) == 0:
			t.Fatalf("%s:%d: before the first case", file, n)
		default:
			l, err := parse(text)
			if err != nil {
				t.Fatalf("%s:%d: %v", file, n, err)
			}
			c := out[len(out)-1]
			c.lines, c.at = append(c.lines, l), append(c.at, n)
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
