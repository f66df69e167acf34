package sim

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault is one thing that goes wrong, from At, for a while.
//
//	4.25s kill leader 2s
//	5s cut n1 n3 800ms
//	7s disk n2 1 stall 3s
//
// Who is a machine, a client, or "leader": the machine that leads when the
// time comes.
type Fault struct {
	At   time.Duration
	Kind string
	Who  string
	Arg  string // the other machine, what a disk does
	Disk int
	For  time.Duration
}

// The kinds of fault, each with whom it concerns.
const (
	kill    = "kill"     // a process, started again after
	pause   = "pause"    // a process or client, woken after
	power   = "power"    // a machine, switched on after; where writes are synced
	dark    = "dark"     // the power of all machines
	cut     = "cut"      // a link, both ways
	deaf    = "deaf"     // a link, one way: Who does not hear Arg
	isolate = "isolate"  // a machine from all others and clients
	alone   = "alone"    // a master from the other masters: clients reach it
	slow    = "slow"     // all links of a machine
	lossy   = "lossy"    // the links between all masters
	reset   = "reset"    // the connections between two
	onDisk  = "disk"     // of a machine
	setting = "setclock" // the time of day of a machine
	drain   = "drain"    // a chunkserver, taken back after
	lose    = "lose"     // what is on a disk, for ever; at most one in a run
	rot     = "rot"      // a bit of a chunk at rest; after all else
)

// diskFaults are the things that a disk does, by name.
var diskFaults = map[string]Trouble{
	"stall":  {Stall: 300 * time.Millisecond},
	"hang":   {Stall: 6 * time.Second},
	"full":   {Full: true},
	"scarce": {Scarce: true},
	"ro":     {ReadOnly: true},
	"read":   {ReadErr: 100},
	"write":  {WriteErr: 100},
	"sync":   {SyncErr: 200},
	"flip":   {FlipRead: 100},
}

// String is the fault as a line of a schedule.
func (f Fault) String() string {
	s := fmt.Sprintf("%v %s", f.At, f.Kind)
	if f.Who != "" {
		s += " " + f.Who
	}
	if f.Kind == onDisk {
		s += fmt.Sprintf(" %d", f.Disk)
	}
	if f.Arg != "" {
		s += " " + f.Arg
	}
	return s + " " + f.For.String()
}

// Schedule is the faults of a run, in order.
type Schedule []Fault

// Write writes a schedule, a fault a line.
func (s Schedule) Write(w io.Writer) error {
	for _, f := range s {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}

// words is how many words follow the kind, before the duration.
var words = map[string]int{
	kill: 1, pause: 1, power: 1, dark: 0, cut: 2, deaf: 2, isolate: 1, alone: 1, slow: 1, lossy: 0, reset: 2, onDisk: 3, setting: 1, drain: 1, lose: 1, rot: 1,
}

// ReadSchedule reads what Write wrote; empty lines and those that begin with
// # do not count. It names the line that is wrong.
func ReadSchedule(r io.Reader) (Schedule, error) {
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
	return out, sc.Err()
}

func parseFault(w []string) (f Fault, err error) {
	if len(w) < 3 {
		return f, fmt.Errorf("%q: want a time, a kind and a duration", strings.Join(w, " "))
	}
	f.Kind = w[1]
	n, ok := words[f.Kind]
	if !ok {
		return f, fmt.Errorf("no fault %q; there are %s", f.Kind, strings.Join(sortedKeys(words), ", "))
	}
	if len(w) != n+3 {
		return f, fmt.Errorf("%s takes %d words and a duration", f.Kind, n)
	}
	if f.At, err = time.ParseDuration(w[0]); err != nil {
		return f, err
	}
	if f.For, err = time.ParseDuration(w[len(w)-1]); err != nil {
		return f, err
	}
	if n > 0 {
		f.Who = w[2]
	}
	switch f.Kind {
	case cut, deaf, reset:
		f.Arg = w[3]
	case onDisk:
		if _, err := fmt.Sscanf(w[3], "%d", &f.Disk); err != nil {
			return f, fmt.Errorf("disk %q: want a number", w[3])
		}
		f.Arg = w[4]
		if _, ok := diskFaults[f.Arg]; !ok {
			return f, fmt.Errorf("a disk does not do %q; there are %s", f.Arg, strings.Join(sortedKeys(diskFaults), ", "))
		}
	}
	return f, nil
}

// Shape draws the configuration of a seed.
func Shape(seed uint64) Config {
	rng := rand.New(rand.NewPCG(seed, 3))
	conf := Config{
		Seed: seed, Masters: 3 + 2*(rng.IntN(5)/4), Chunkservers: 3 + rng.IntN(4), DisksEach: 1 + rng.IntN(4)/3, Clients: 2 + rng.IntN(2),
		Replicas: 2 + rng.IntN(4)/3, LogBytes: []int64{16 << 10, 256 << 10, 64 << 20}[rng.IntN(3)],
		RepairAfter: []time.Duration{5 * time.Second, time.Hour}[rng.IntN(2)], Durable: rng.IntN(2) == 0, NoWitness: rng.IntN(5) == 0,
	}
	if rng = rand.New(rand.NewPCG(seed, 6)); !conf.Durable && rng.IntN(2) == 0 {
		conf.Mixed, conf.Lone = true, rng.IntN(3) == 0
	}
	return conf
}

// draw makes the faults of a seed for a cluster.
func draw(conf Config, length time.Duration) Schedule {
	rng := rand.New(rand.NewPCG(conf.Seed, 4))
	machine := func() string {
		if rng.IntN(3) == 0 {
			return "leader"
		}
		return fmt.Sprintf("n%d", 1+rng.IntN(max(conf.Masters, conf.Chunkservers)))
	}
	client := func() string { return fmt.Sprintf("c%d", 1+rng.IntN(conf.Clients)) }
	// What is likely differs from run to run, so that some see much of one.
	weights := map[string]int{
		kill: 6, pause: 6, cut: 3, deaf: 3, isolate: 4, slow: 1, lossy: 1, reset: 2, onDisk: 3, setting: 1, drain: 2,
	}
	if conf.Durable {
		weights[power], weights[dark] = 6, 1
	}
	if conf.Mixed {
		weights[power], weights[dark] = 4, 3
	}
	for _, k := range sortedKeys(weights) {
		weights[k] *= []int{0, 1, 1, 3}[rng.IntN(4)]
	}
	var kinds []string
	for _, k := range sortedKeys(weights) {
		for range weights[k] {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		kinds = []string{kill}
	}
	var out Schedule
	for range 2 + rng.IntN(12) {
		f := Fault{
			At:   time.Duration(rng.Int64N(int64(length))).Round(time.Millisecond),
			For:  time.Duration(float64(50*time.Millisecond) * float64(uint64(1)<<rng.IntN(8)) * (1 + rng.Float64())).Round(time.Millisecond),
			Kind: kinds[rng.IntN(len(kinds))], Who: machine(),
		}
		if conf.Lone {
			f.Kind = power
			return Schedule{f}
		}
		switch f.Kind {
		case pause, reset:
			if rng.IntN(3) == 0 {
				f.Who = client()
			}
		case dark, lossy:
			f.Who = ""
		case onDisk:
			f.Disk = rng.IntN(2)
			f.Arg = sortedKeys(diskFaults)[rng.IntN(len(diskFaults))]
		}
		switch f.Kind {
		case cut, deaf, reset:
			if f.Arg = machine(); rng.IntN(4) == 0 {
				f.Arg = client()
			}
		}
		out = append(out, f)
	}
	out = append(out, deposed(conf, length)...)
	slices.SortStableFunc(out, func(a, b Fault) int { return int(a.At - b.At) })
	return append(out, after(conf, rng, length)...)
}

// deposed draws leaders that are cut off from the other masters and not from
// clients, in a third of all runs: such a one learns last that another leads.
func deposed(conf Config, length time.Duration) (out Schedule) {
	rng := rand.New(rand.NewPCG(conf.Seed, 5))
	if rng.IntN(3) > 0 {
		return nil
	}
	for range 1 + rng.IntN(3) {
		out = append(out, Fault{
			At:   time.Duration(rng.Int64N(int64(length))).Round(time.Millisecond),
			For:  (500*time.Millisecond + time.Duration(rng.Int64N(int64(4*time.Second)))).Round(time.Millisecond),
			Kind: alone, Who: "leader",
		})
	}
	return out
}

// after draws what is tried once all is well again: the loss of a whole disk,
// and a bit that rots. They are the single failure of a run, because a copy
// that is lost or damaged is one less.
func after(conf Config, rng *rand.Rand, length time.Duration) (out Schedule) {
	who := func() string {
		first := max(0, conf.Masters-conf.Chunkservers)
		return fmt.Sprintf("n%d", first+1+rng.IntN(conf.Chunkservers))
	}
	if rng.IntN(4) == 0 {
		out = append(out, Fault{At: length, Kind: lose, Who: who()})
	}
	if rng.IntN(3) == 0 {
		out = append(out, Fault{At: length + time.Second, Kind: rot, Who: who()})
	}
	return out
}
