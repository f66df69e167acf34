package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar/internal/config"
)

// Fault is one thing that goes wrong, from At, for a while: a line of a
// schedule.
//
//	4.25s kill leader 2s           SIGKILL; started again 2 s later; also a client, c1, or the mount, m1
//	5s pause n2 6s                 SIGSTOP and SIGCONT; also clients and the mount
//	7s killall 1s                  every node at once
//	8s cut n1 n3 800ms             every packet between two is dropped; also clients
//	8s deaf n1 n3 2s               n1 does not hear n3
//	9s isolate n2 3s               n2 neither hears nor is heard
//	9s mute n2 3s                  n2 hears and is not heard
//	9s refuse n2 tcp-reset 3s      what n2 is sent is answered with a reset: REJECT
//	9s refuse n2 icmp 3s           ... with port unreachable
//	10s lossy n2 3s                every fifth packet to n2 is lost
//	10s slow n2 30ms 2s            whatever goes to and from n2 takes so long, each way
//	10s far n1 n3 100ms 2s         likewise between two; also clients
//	10s narrow n2 256KiB 2s        no more than that goes to n2, or from it, in a second
//	12s disk n1 chunks full 3s     of chunks or data: a word of diskFaults
//	13s setclock n1 1h 5s          its time of day
//
// Who is a node, "leader": the node that leads when the time comes, or for
// some a client. A process that is down or stopped is not killed or stopped
// again.
type Fault struct {
	At   time.Duration
	Kind string
	Args []string
	For  time.Duration
}

// String is the fault as a line of a schedule.
func (f Fault) String() string {
	return strings.Join(append(append([]string{f.At.String(), f.Kind}, f.Args...), f.For.String()), " ")
}

// Schedule is the faults of a round, in order.
type Schedule []Fault

// diskFault is what a disk does: a rule of internal/faults without the prefix,
// and what comes of it.
type diskFault struct {
	rule string
	// A process may end by itself (ends), and one whose disk had such errors is
	// started again when the disk is mended (mend), as an administrator would.
	ends, mend bool
}

var diskFaults = map[string]diskFault{
	"full":     {"full", true, true},
	"scarce":   {"free 1MiB", false, false}, // less than the reserve
	"readonly": {"readonly", true, true},
	"read":     {"read error every 7", true, true},
	"write":    {"write error every 11", true, true},
	"sync":     {"sync error every 5", true, true},
	"flaky":    {"any error chance 2%", true, true},
	"flip":     {"read flip chance 2%", true, false},
	"stall":    {"sync stall 300ms", false, false},
	"slow":     {"any stall 20ms chance 20%", false, false},
	"hang":     {"any stall 6s every 50", false, false},
}

// words are what each kind of fault takes, between its name and its duration:
// what looks at each word, nil for nodes and clients, which are looked at when
// the time comes.
var words = map[string][]func(string) error{
	"kill": {nil}, "pause": {nil}, "killall": {},
	"cut": {nil, nil}, "deaf": {nil, nil}, "isolate": {nil}, "mute": {nil}, "lossy": {nil},
	"slow": {nil, delay}, "far": {nil, nil, delay}, "narrow": {nil, rate},
	"refuse":   {nil, oneOf(refusals)},
	"disk":     {nil, oneOf([]string{"chunks", "data"}), oneOf(diskWords)},
	"setclock": {nil, duration},
}

var (
	refusals  = []string{"tcp-reset", "icmp"}
	diskWords = slices.Sorted(maps.Keys(diskFaults))
)

// rateMin is the least bandwidth, in bytes a second: below it a frame of the
// largest size does not get through in time.
const rateMin = 64 << 10

func oneOf(words []string) func(string) error {
	return func(w string) error {
		if slices.Contains(words, w) {
			return nil
		}
		return fmt.Errorf("no %q; there are %s", w, strings.Join(words, ", "))
	}
}

func duration(w string) error {
	_, err := time.ParseDuration(w)
	return err
}

// delayMax is the most that a frame is delayed.
const delayMax = 10 * time.Second

func delay(w string) error {
	d, err := time.ParseDuration(w)
	if err == nil && (d <= 0 || d > delayMax) {
		err = fmt.Errorf("%v is no delay; it is above 0 and up to %v", d, delayMax)
	}
	return err
}

func rate(w string) error {
	n, err := config.ParseSize(w)
	if err == nil && n < rateMin {
		err = fmt.Errorf("%q is less than %d bytes a second", w, rateMin)
	}
	return err
}

func loadSchedule(file string) (Schedule, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSchedule(f)
}

// readSchedule reads a schedule; empty lines and those that begin with # do
// not count. It names the line that is wrong.
func readSchedule(r io.Reader) (Schedule, error) {
	var out Schedule
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f, err := parseFault(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("schedule: line %d: %w", n, err)
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Fault) int { return int(a.At - b.At) })
	return out, sc.Err()
}

func parseFault(w []string) (f Fault, err error) {
	if len(w) < 3 {
		return f, fmt.Errorf("%q: want a time, a kind and a duration", strings.Join(w, " "))
	}
	want, ok := words[w[1]]
	if !ok {
		return f, fmt.Errorf("no fault %q; there are %s", w[1], strings.Join(slices.Sorted(maps.Keys(words)), ", "))
	}
	f.Kind, f.Args = w[1], w[2:len(w)-1]
	if len(f.Args) != len(want) {
		return f, fmt.Errorf("%s takes %d words and a duration", f.Kind, len(want))
	}
	for i, a := range f.Args {
		if want[i] == nil {
			continue
		}
		if err := want[i](a); err != nil {
			return f, fmt.Errorf("%s: %w", f.Kind, err)
		}
	}
	if f.At, err = time.ParseDuration(w[0]); err != nil {
		return f, err
	}
	if f.For, err = time.ParseDuration(w[len(w)-1]); err != nil {
		return f, err
	}
	if f.At < 0 || f.For < 0 {
		return f, fmt.Errorf("%s begins or ends before it began", f.Kind)
	}
	return f, nil
}

// weights say how often a fault is drawn; a seed multiplies each by one of
// likely, so that some see much of one sort.
var weights = []struct {
	kind   string
	weight int
}{
	{"kill", 6}, {"pause", 5}, {"killall", 1}, {"cut", 3}, {"deaf", 2}, {"isolate", 3}, {"mute", 2},
	{"refuse", 4}, {"lossy", 1}, {"slow", 3}, {"far", 2}, {"narrow", 1}, {"disk", 8}, {"setclock", 1},
}

var likely = []int{0, 1, 1, 3}

// draw makes the faults of a seed.
func draw(seed uint64, clients int, length time.Duration) Schedule {
	rng := rand.New(rand.NewPCG(seed, 1))
	node := func() string {
		if rng.IntN(3) == 0 {
			return "leader"
		}
		return fmt.Sprintf("n%d", 1+rng.IntN(nodes))
	}
	one := func(words ...string) string { return words[rng.IntN(len(words))] }
	client := func() string {
		if i := rng.IntN(clients + 1); i > 0 {
			return fmt.Sprintf("c%d", i)
		}
		return mountName
	}
	var kinds []string
	for _, w := range weights {
		kinds = append(kinds, slices.Repeat([]string{w.kind}, w.weight*likely[rng.IntN(len(likely))])...)
	}
	if len(kinds) == 0 {
		kinds = []string{"kill"}
	}
	pause := time.Duration(2+rng.IntN(4)) * time.Second // at most, from one to the next
	var out Schedule
	for at := time.Second; at < length; at += time.Duration(rng.Int64N(int64(pause))) {
		f := Fault{At: at.Round(time.Millisecond), Kind: kinds[rng.IntN(len(kinds))], For: (200*time.Millisecond + time.Duration(rng.Int64N(int64(4*time.Second)))).Round(time.Millisecond)}
		switch f.Kind {
		case "kill", "pause":
			f.Args = []string{node()}
			if rng.IntN(4) == 0 {
				f.Args[0] = client()
			}
			if f.Kind == "pause" && rng.IntN(2) == 0 { // longer than any lease
				f.For = 6 * time.Second
			}
		case "cut", "deaf", "far":
			f.Args = []string{node(), node()}
			if f.Args[0] == f.Args[1] || rng.IntN(4) == 0 {
				f.Args[1] = "clients"
			}
			if f.Kind == "far" {
				f.Args = append(f.Args, one("30ms", "100ms", "400ms"))
			}
		case "slow":
			f.Args = []string{node(), one("5ms", "30ms", "150ms", "600ms")}
		case "narrow":
			f.Args = []string{node(), one("128KiB", "1MiB")}
		case "isolate", "mute", "lossy":
			f.Args = []string{node()}
		case "refuse":
			f.Args = []string{node(), one(refusals...)}
		case "disk":
			where, what := "chunks", one(diskWords...)
			if rng.IntN(3) == 0 && what != "scarce" { // masters keep no reserve
				where = "data"
			}
			f.Args = []string{node(), where, what}
		case "setclock":
			f.Args = []string{node(), one("1h", "-1h", "24h")}
		}
		out = append(out, f)
	}
	return out
}
