//go:build simruntime

package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	fromFlag = flag.Uint64("from", 1, "first seed")
	runsFlag = flag.Uint64("runs", 0, "how many seeds; 0 for as many as the time allows")
	timeFlag = flag.Duration("for", time.Minute, "how long to go on without -runs")
	jobsFlag = flag.Int("jobs", 2, "runs at a time")
)

// TestMain switches the collector off, which does not know the memory that
// this runtime gives to threads, and lets time go on in the parent, which is
// not in a bubble; until then it stands still (test/sim/runtime).
func TestMain(m *testing.M) {
	debug.SetGCPercent(-1)
	flag.Parse()
	if *seedFlag == 0 {
		seedRuntime(1, false)
	}
	os.Exit(m.Run())
}

// childTimeout is how long one run may take, real time.
const childTimeout = 3 * time.Minute

// child runs one seed in a process of its own.
func child(seed uint64, dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), childTimeout)
	defer cancel()
	args = append([]string{"-test.run", "^TestOneSeed$", "-seed", fmt.Sprint(seed), "-dir", filepath.Join(dir, fmt.Sprint(seed))}, args...)
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=profstackdepth=0")
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("no end after %v", childTimeout)
	}
	return string(out), err
}

// afreshIn is in how many runs some client surely follows another leader.
const afreshIn = 20

var afreshWords = regexp.MustCompile(` afresh (\d+) `)

var hashLine = regexp.MustCompile(`hash [0-9a-f]{16} events \d+ ops \d+ answered \d+ `)

// I-1 to I-8 and I-10: whole clusters under faults.
func TestSeeds(t *testing.T) {
	dir := resultsDir(t)
	end := time.Now().Add(*timeFlag)
	var mu sync.Mutex
	next, done, afresh := *fromFlag, 0, 0
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if *runsFlag > 0 && next >= *fromFlag+*runsFlag || *runsFlag == 0 && time.Now().After(end) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	var wg sync.WaitGroup
	for range *jobsFlag {
		wg.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				out, err := child(seed, dir)
				mu.Lock()
				if w := afreshWords.FindStringSubmatch(out); w != nil && w[1] != "0" {
					afresh++
				}
				if done++; done%100 == 0 {
					fmt.Printf("%d runs, seeds %d to %d\n", done, *fromFlag, next-1)
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("seed %d: %v\n%s\nagain: scripts/sim.sh -seed %d\n%s", seed, err, tail(out), seed, shorten(seed, dir, out))
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d runs, seeds %d to %d; in %d names were read under a leader that was new to the client\n", done, *fromFlag, next-1, afresh)
	if done == 0 {
		t.Error("no run fitted in the time")
	}
	if done >= afreshIn && afresh == 0 {
		t.Error("no client ever read names under another leader than before: the workload is not what it should be")
	}
}

// resultsDir is where histories that are wrong are explained; it stays if
// something is.
func resultsDir(t *testing.T) string {
	if *dirFlag != "" {
		return *dirFlag
	}
	dir, err := os.MkdirTemp("", "ashlar-sim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	return dir
}

func tail(out string) string {
	const most = 4 << 10
	if len(out) > most {
		return out[:most/2] + "\n...\n" + out[len(out)-most/2:]
	}
	return out
}

// shorten looks for fewer faults with which a seed still fails: it leaves out
// one after the other, from the last. It returns what is left.
func shorten(seed uint64, dir, out string) string {
	_, text, ok := strings.Cut(out, "schedule:\n")
	if !ok {
		return "it did not come to its end; the schedule is the seed's"
	}
	schedule, err := ReadSchedule(strings.NewReader(strings.TrimSuffix(text, "FAIL\n")))
	if err != nil {
		return "its schedule does not read: " + err.Error()
	}
	name := filepath.Join(dir, fmt.Sprintf("schedule-%d", seed))
	fails := func(s Schedule) bool {
		if err := writeSchedule(name, s); err != nil {
			return false
		}
		_, err := child(seed, filepath.Join(dir, "shorter"), "-schedule", name)
		return err != nil
	}
	for i := len(schedule) - 1; i >= 0; i-- {
		shorter := append(append(Schedule(nil), schedule[:i]...), schedule[i+1:]...)
		if fails(shorter) {
			schedule = shorter
		}
	}
	if err := writeSchedule(name, schedule); err != nil {
		return err.Error()
	}
	var b strings.Builder
	_ = schedule.Write(&b) // a Builder takes everything
	return fmt.Sprintf("it fails with these faults alone: scripts/sim.sh -seed %d -schedule %s\n%s", seed, name, b.String())
}

func writeSchedule(name string, s Schedule) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(s.Write(f), f.Close())
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	dir := resultsDir(t)
	var wg sync.WaitGroup
	for job := range *jobsFlag {
		wg.Go(func() {
			for seed := *fromFlag + uint64(job); seed < *fromFlag+20; seed += uint64(*jobsFlag) {
				twice(t, seed, dir)
			}
		})
	}
	wg.Wait()
}

// twice runs a seed two times and compares the hashes of all events. Whether
// it fails is TestSeeds' business.
func twice(t *testing.T, seed uint64, dir string) {
	var lines [2]string
	for i := range lines {
		out, _ := child(seed, dir)
		if lines[i] = hashLine.FindString(out); lines[i] == "" {
			t.Errorf("seed %d: no hash in\n%s", seed, tail(out))
			return
		}
	}
	if lines[0] != lines[1] {
		t.Errorf("seed %d: two runs: %s and %s", seed, lines[0], lines[1])
	}
}
