package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// report prints figures and counts the bars that were missed.
type report struct {
	out          io.Writer
	bars, missed int
}

// say prints a figure without a bar.
func (r *report) say(format string, args ...any) {
	fmt.Fprintf(r.out, "  "+format+"\n", args...)
}

// title begins a group of figures.
func (r *report) title(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// atMost prints a figure that must not exceed its bar.
func (r *report) atMost(what string, got, bar float64, unit string) {
	r.judge(got <= bar, what, got, "at most", bar, unit)
}

// atLeast prints a figure that must reach its bar.
func (r *report) atLeast(what string, got, bar float64, unit string) {
	r.judge(got >= bar, what, got, "at least", bar, unit)
}

func (r *report) judge(ok bool, what string, got float64, word string, bar float64, unit string) {
	r.bars++
	verdict := "ok"
	if !ok {
		r.missed++
		verdict = "MISSED"
	}
	fmt.Fprintf(r.out, "  %-46s %10s %-8s bar: %s %s  %s\n", what, number(got), unit, word, number(bar), verdict)
}

func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// mib is bytes in MiB.
func mib[T ~int64 | ~uint64](b T) float64 { return float64(b) / (1 << 20) }

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// latencies are the durations of requests.
type latencies []time.Duration

// at returns the quantile q, 0 of none.
func (l latencies) at(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(l))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func (l latencies) median() time.Duration { return l.at(0.5) }
func (l latencies) max() time.Duration    { return l.at(1) }

// median returns the middle one of some figures.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
