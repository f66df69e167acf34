package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// generous is how far a figure may be from its bar where other tests run
// beside it; `make scale` takes the bars as they are.
const generous = 10

// TestMain lets the tests start this program as the capped process.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(os.Stdout, dir); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func small(t *testing.T, n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

func TestInodesAreNotHeldInMemory(t *testing.T) {
	n := small(t, 200_000)
	res, how, err := inodes(t.Context(), t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{out: t.Output()}
	r.title("%d inodes in a process capped at 1 GiB (%s)", n, how)
	res.print(r, n)
	r.atMost("peak resident memory", mib(res.PeakBytes), 512, "MiB")
	r.atMost("reopened and answering", (res.Open + res.First).Seconds(), generous*5, "s")
	if r.missed > 0 {
		t.Error("a bar is missed")
	}
}

func TestACheckpointHoldsUpNoRequest(t *testing.T) {
	res, err := checkpoints(t.Context(), t.TempDir(), small(t, 100_000), 10)
	if err != nil {
		t.Fatal(err)
	}
	r := &report{out: t.Output()}
	res.print(r)
	r.atMost("a checkpoint adds to the slowest request", ms(res.delay()), generous*ms(checkpointBar), "ms")
	if r.missed > 0 {
		t.Error("a bar is missed")
	}
	if len(res.During) == 0 {
		t.Error("no request ran beside a checkpoint")
	}
}

func TestQuantilesAreOfTheSortedDurations(t *testing.T) {
	l := latencies{5, 1, 3, 2, 4}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0, 1}, {0.5, 3}, {0.99, 5}, {1, 5}} {
		if got := l.at(c.q); got != c.want {
			t.Errorf("quantile %v is %v, want %v", c.q, got, c.want)
		}
	}
}
