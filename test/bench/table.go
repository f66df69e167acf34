package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unsafe"
)

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// results collects the values of every figure by target.
type results struct {
	order []figure // names and units, in order of first appearance
	vals  map[string]map[string][]float64
}

func (r *results) add(target string, figs []figure) {
	if r.vals == nil {
		r.vals = map[string]map[string][]float64{}
	}
	for _, f := range figs {
		if r.vals[f.name] == nil {
			r.vals[f.name] = map[string][]float64{}
			r.order = append(r.order, f)
		}
		r.vals[f.name][target] = append(r.vals[f.name][target], f.value)
	}
}

// ratio is how many times better a is than b.
func ratio(unit string, a, b float64) float64 {
	if unit == "s" || unit == "MiB" {
		a, b = b, a
	}
	if b == 0 {
		return 0
	}
	return a / b
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// print writes a Markdown table: the median (min..max) of each target, then
// how many times better ashlar is than each other.
func (r *results) print(w io.Writer, targets []string) {
	var others []string
	for _, t := range targets {
		if t != self {
			others = append(others, t)
		}
	}
	fmt.Fprintf(w, "| figure | unit | %s |", strings.Join(targets, " | "))
	for _, o := range others {
		fmt.Fprintf(w, " %s/%s |", self, o)
	}
	fmt.Fprintf(w, "\n|---|---|%s\n", strings.Repeat("--:|", len(targets)+len(others)))
	for _, f := range r.order {
		fmt.Fprintf(w, "| %s | %s |", f.name, f.unit)
		by := r.vals[f.name]
		for _, t := range targets {
			if v := by[t]; len(v) > 0 {
				fmt.Fprintf(w, " %s (%s..%s) |", number(median(v)), number(slices.Min(v)), number(slices.Max(v)))
			} else {
				fmt.Fprint(w, " |")
			}
		}
		for _, o := range others {
			if len(by[o]) == 0 || len(by[self]) == 0 {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " **%.2f** |", ratio(f.unit, median(by[self]), median(by[o])))
		}
		fmt.Fprintln(w)
	}
}

// bar is the least that a figure must be, as a multiple of MooseFS's and of
// GlusterFS's; 0 is no bar.
type bar struct {
	figure           string
	moosefs, gluster float64
}

// bars are against peers with two copies, as docs/performance.md explains.
var bars = []bar{
	{"seq_write", 1.5, 1}, {"seq_read_cold", 1.2, 1}, {"mount_cpu_per_gib_read", 1, 0},
	{"randread_4k_1t_cold", 1.5, 1}, {"randread_4k_16t_cold", 3, 1},
	{"randread_4k_1t_direct", 1, 1}, {"randread_4k_16t_direct", 1, 1},
	{"randwrite_4k_1t_fdatasync", 1.2, 1}, {"randwrite_4k_16t_fdatasync", 1, 1}, {"randwrite_4k_16t", 1.5, 1},
	{"create_1t", 1.5, 5}, {"create_8t", 2.5, 5}, {"rename_1t", 1.5, 1}, {"unlink_1t", 1.5, 1}, {"unlink_8t", 1.5, 1},
	{"stat_1t_cold", 1, 1}, {"stat_8t_cold", 1, 1}, {"stat_1t_warm", 20, 1},
	{"ls_l_cold", 2, 1}, {"ls_l_warm", 5, 1},
	{"small_write_1t", 2, 5}, {"small_write_8t", 2, 5},
	{"small_read_1t_cold", 1.5, 1}, {"small_read_8t_cold", 1.5, 1}, {"small_read_1t_warm", 1, 1},
	{"tar_x", 2.5, 1}, {"find_cold", 1, 1}, {"grep_cold", 2, 1}, {"rm_rf", 1, 1},
}

// memoryBar is the most that a mount may hold in memory, in MiB.
const memoryBar = 256

// missed returns the bars that were not reached, worst first.
func (r *results) missed() []string {
	type miss struct {
		text string
		by   float64
	}
	var out []miss
	units := map[string]string{}
	for _, f := range r.order {
		units[f.name] = f.unit
	}
	for _, b := range bars {
		by := r.vals[b.figure]
		for _, p := range []struct {
			name  string
			least float64
		}{{"moosefs", b.moosefs}, {"gluster", b.gluster}} {
			if p.least == 0 || len(by[p.name]) == 0 || len(by[self]) == 0 {
				continue
			}
			if got := ratio(units[b.figure], median(by[self]), median(by[p.name])); got < p.least {
				out = append(out, miss{fmt.Sprintf("%s: %.2f times %s, want %.1f", b.figure, got, p.name, p.least), got / p.least})
			}
		}
	}
	if v := r.vals["mount_memory_peak"][self]; len(v) > 0 && slices.Max(v) > memoryBar {
		out = append(out, miss{fmt.Sprintf("mount_memory_peak: %.0f MiB, want at most %d", slices.Max(v), memoryBar), memoryBar / slices.Max(v)})
	}
	slices.SortFunc(out, func(a, b miss) int { return cmp.Compare(a.by, b.by) })
	var text []string
	for _, m := range out {
		text = append(text, m.text)
	}
	return text
}
