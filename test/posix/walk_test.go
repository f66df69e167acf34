package posix

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// walkSteps is how many calls a walk makes.
const walkSteps = 150

// seedAndTime are where random tests begin and for how long they go on.
func seedAndTime(t testing.TB, short time.Duration) (uint64, time.Duration) {
	t.Helper()
	seed, d := uint64(1), short
	var err error
	if s := os.Getenv("ASHLAR_POSIX_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("ASHLAR_POSIX_FOR"); s != "" {
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	return seed, d
}

// TestRandomWalksAreAlike makes calls at random in both trees. One that ends
// differently is shortened to a case for the tables.
func TestRandomWalksAreAlike(t *testing.T) {
	seed, d := seedAndTime(t, 8*time.Second)
	walks := 0
	for end := time.Now().Add(d); time.Now().Before(end); seed++ {
		lines := walk(t, seed)
		diff, n := follow(t, lines)
		if walks++; diff == "" {
			continue
		}
		lines = shorten(t, lines[:n])
		diff, _ = follow(t, lines)
		var b strings.Builder
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l.text)
		}
		t.Fatalf("seed %d, shortened:\ncase seed %d\n%s\nends with\n%s", seed, seed, b.String(), diff)
	}
	t.Logf("%d walks of %d calls, up to seed %d", walks, walkSteps, seed-1)
}

// follow makes calls until one differs and returns how, and after how many.
func follow(t *testing.T, lines []line) (diff string, n int) {
	t.Run("", func(t *testing.T) {
		p := newPair(t)
		for i := range lines {
			if p.isTheKernels(&lines[i]) {
				continue
			}
			d, err := p.step(&lines[i])
			if err != nil {
				t.Fatal(err)
			}
			if d != "" {
				diff, n = d, i+1
				return
			}
		}
	})
	return diff, n
}

// isTheKernels tells whether a call is one that the kernel answers for FUSE in
// another way, without asking: data that passes through an open FIFO, whose
// times move, and holes of a directory.
func (p *pair) isTheKernels(l *line) (yes bool) {
	p.ref.do(func() {
		for _, a := range l.args {
			var st unix.Stat_t
			if fd, ok := p.ref.fds[a]; ok && unix.Fstat(fd, &st) == nil {
				kind := st.Mode & unix.S_IFMT
				yes = yes || kind == unix.S_IFIFO || kind == unix.S_IFDIR && l.op == "seek"
			}
		}
	})
	return yes
}

// shorten leaves out calls as long as what is left still differs somewhere.
func shorten(t *testing.T, lines []line) []line {
	for size := len(lines) / 2; size > 0; size /= 2 {
		for at := 0; at < len(lines); {
			fewer := append(append([]line(nil), lines[:at]...), lines[min(at+size, len(lines)):]...)
			if diff, n := follow(t, fewer); diff != "" {
				lines = fewer[:n]
			} else {
				at += size
			}
		}
	}
	return lines
}

// walk makes up a script.
func walk(t *testing.T, seed uint64) []line {
	w := &walker{rand.New(rand.NewPCG(seed, 1)), notTogether[seed%2]}
	lines := make([]line, 0, walkSteps)
	for len(lines) < walkSteps {
		l, err := parse(w.call() + " = ?")
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

type walker struct {
	*rand.Rand
	not []string // calls that are not made
}

// notTogether is which calls a walk does without: there may be a hole here
// where ext4 has a block of zeros, if a hole was copied there or data that was
// written there was cut off before it left the mount.
var notTogether = [2][]string{{"seek "}, {"copyrange ", "truncate "}}

func (w *walker) of(choices ...string) string { return choices[w.IntN(len(choices))] }

// path is one of few, so that calls meet.
func (w *walker) path() string {
	p := w.of("a", "b", "c", "d")
	for w.IntN(3) == 0 {
		p = w.of("a", "b", "d") + "/" + p
	}
	if w.IntN(40) == 0 {
		p += w.of("/", "/.", "/..")
	}
	return p
}

func (w *walker) mode() string {
	if w.IntN(3) > 0 {
		return w.of("0777", "0755", "0644", "0666", "01777", "02777")
	}
	return fmt.Sprintf("%05o", w.IntN(0o10000))
}

func (w *walker) id() string   { return w.of("0", "1001", "1002", "1003", "-1") }
func (w *walker) slot() string { return w.of("x", "y", "z") }

func (w *walker) size() string {
	return strconv.Itoa(w.IntN([]int{10, 5000, 70000}[w.IntN(3)]))
}

func (w *walker) time() string {
	return w.of("now", "omit", strconv.Itoa(w.IntN(1000)), "1000000000.000000001")
}

func (w *walker) acl() string {
	s := fmt.Sprintf("u::%s", w.perms())
	named := w.IntN(3) > 0
	if named {
		s += fmt.Sprintf(",u:%s:%s", w.of("1001", "1002", "1003"), w.perms())
	}
	s += ",g::" + w.perms()
	if named && w.IntN(2) == 0 {
		s += fmt.Sprintf(",g:%s:%s", w.of("1001", "1002", "1003"), w.perms())
	}
	if named {
		s += ",m::" + w.perms()
	}
	s += ",o::" + w.perms()
	return w.of(s, s, s, s, "none")
}

func (w *walker) perms() string {
	return w.of("rwx", "rwx", "r-x", "rw-", "r--", "---", "--x", "-wx")
}

// call makes up one call that may not differ: docs/posix.md lists what does.
func (w *walker) call() string {
	for {
		c := w.anyCall()
		if strings.HasPrefix(c, "u") && strings.Contains(c, "chown ") && strings.HasSuffix(c, " -1 -1") {
			continue // takes setuid away here, where ext4 refuses all but the owner
		}
		if !slices.ContainsFunc(w.not, func(call string) bool { return strings.Contains(c, call) }) {
			return c
		}
	}
}

func (w *walker) anyCall() string {
	who := w.of("", "", "", "u1 ", "u2 ", "u3 ")
	p, q := w.path(), w.path()
	calls := []string{
		"mkdir " + p + " " + w.mode(), "mkdir " + p + " 0777", "create " + p + " " + w.mode(), "create " + p + " 0666",
		"unlink " + p, "rmdir " + p, "link " + p + " " + q, "symlink " + q + " " + p, "rename " + p + " " + q, "rename " + p + " " + q,
		"rename " + p + " " + q + " " + w.of("noreplace", "exchange", "exchange", "whiteout"),
		"mkfifo " + p + " " + w.mode(), "mknod " + p + " " + w.of("sock", "reg", "fifo") + " " + w.mode(), "readlink " + p,
		"chmod " + p + " " + w.mode(), "chmod " + p + " 0777", "chown " + p + " " + w.id() + " " + w.id(),
		"lchown " + p + " " + w.id() + " " + w.id(), "utimens " + p + " " + w.time() + " " + w.time(),
		"lutimens " + p + " " + w.time() + " " + w.time(), "access " + p + " " + w.of("r", "w", "x", "rw", "rwx", "f"),
		"stat " + p, "sum " + p, "truncate " + p + " " + w.size(), "readdir " + p, "umask " + w.of("0", "022", "077", "0177"),
		"setxattr " + p + " " + w.of("user.a", "user.b", "trusted.t", "security.s") + " " + w.of("v", "value") + w.of("", " create", " replace"),
		"getxattr " + p + " " + w.of("user.a", "user.b", "trusted.t"), "listxattr " + p,
		"removexattr " + p + " " + w.of("user.a", "user.b", "trusted.t"), "setfacl " + p + " " + w.acl(),
		"setfacl " + p + " " + w.acl() + " default", "getfacl " + p, "getfacl " + p + " default",
		"open " + p + " " + w.of("rdonly", "rdwr", "wronly", "rdwr,append") + w.of("", ",creat", ",creat,excl", ",trunc", ",nofollow", ",directory", ",creat,trunc") +
			",nonblock " + w.mode() + " >" + w.slot(),
		"open " + p + " rdwr,creat,nonblock 0666 >" + w.slot(),
		"tmpfile " + w.of(".", "a", "b", "d") + " tmpfile,rdwr" + w.of("", ",excl") + " " + w.mode() + " >" + w.slot(),
	}
	if w.IntN(3) > 0 {
		return who + calls[w.IntN(len(calls))]
	}
	x, y := w.slot(), w.slot()
	open := []string{
		"write " + x + " " + w.size() + " " + w.size() + "*q", "write " + x + " " + w.size() + " abc", "append " + x + " defg",
		"read " + x + " " + w.size() + " " + w.size(), "ftruncate " + x + " " + w.size(), "fstat " + x, "fchmod " + x + " " + w.mode(),
		"fchown " + x + " " + w.id() + " " + w.id(), "linkfd " + x + " " + p, "close " + x, "fsync " + x,
		"fallocate " + x + " " + w.of("0", "keep", "punch,keep", "zero", "zero,keep") + " " + w.size() + " " + w.size(),
		"seek " + x + " " + w.of("data", "hole") + " " + w.size(),
		"copyrange " + x + " " + w.size() + " " + y + " " + w.size() + " " + w.size(),
		"sendfile " + x + " " + w.size() + " " + y + " " + w.size(),
	}
	return who + open[w.IntN(len(open))]
}
