package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// printJSON prints v for scripts.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printTable prints rows under a header, without lines around.
func printTable(w io.Writer, header table.Row, rows []table.Row) {
	t := table.NewWriter()
	s := table.StyleLight
	s.Options = table.OptionsNoBordersAndSeparators
	s.Box.PaddingLeft = ""
	s.Box.PaddingRight = "  "
	s.Format.Header = text.FormatUpper
	t.SetStyle(s)
	t.AppendHeader(header)
	t.AppendRows(rows)
	for line := range strings.Lines(t.Render() + "\n") {
		fmt.Fprintln(w, strings.TrimRight(line, " \n")) // the last column is padded too
	}
}

func size(n uint64) string { return config.FormatSize(n) }

// progressEvery is how often a bar is drawn.
const progressEvery = 100 * time.Millisecond

// bar draws how far one thing is, on a terminal only. The zero bar draws
// nothing.
type bar struct {
	w progress.Writer
	t *progress.Tracker
}

// newBar starts a bar. units are bytes or plain numbers.
func newBar(g *global, what string, total uint64, bytes bool) *bar {
	if !g.terminal() || g.json {
		return &bar{}
	}
	w := progress.NewWriter()
	w.SetOutputWriter(g.Err)
	w.SetAutoStop(false)
	w.SetUpdateFrequency(progressEvery)
	w.SetTrackerLength(30)
	w.Style().Visibility.ETA = true
	w.Style().Visibility.Speed = bytes
	t := &progress.Tracker{Message: what, Total: int64(total)}
	if bytes {
		t.Units = progress.UnitsBytes
	}
	w.AppendTracker(t)
	go w.Render()
	return &bar{w: w, t: t}
}

// set moves the bar.
func (b *bar) set(done, total uint64) {
	if b.t != nil {
		b.t.UpdateTotal(int64(total))
		b.t.SetValue(int64(done))
	}
}

// add moves the bar by n.
func (b *bar) add(n int) {
	if b.t != nil {
		b.t.Increment(int64(n))
	}
}

// say changes the words before the bar.
func (b *bar) say(what string) {
	if b.t != nil {
		b.t.UpdateMessage(what)
	}
}

// done ends the bar, leaving its last state on the screen.
func (b *bar) done(err error) {
	if b.t == nil {
		return
	}
	if err != nil {
		b.t.MarkAsErrored()
	} else {
		b.t.MarkAsDone()
	}
	b.w.Stop()
	for b.w.IsRenderInProgress() {
		<-time.After(time.Millisecond)
	}
}

// ago writes a silence for people.
func ago(seconds float64) string {
	return fmt.Sprint(time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond))
}
