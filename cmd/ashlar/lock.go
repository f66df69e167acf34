package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func newLockCmd(g *global) *cobra.Command {
	return newNoun("lock", "hold named locks, and see who holds or waits for which lock",
		`Locks by name are for programs on different machines that must not do something
at the same time. A lock is held in one of six modes, which exclude each other
as those of the classic distributed lock managers do:

        NL  CR  CW  PR  PW  EX       NL  null: interest only
    NL   +   +   +   +   +   +       CR  concurrent read
    CR   +   +   +   +   +   -       CW  concurrent write
    CW   +   +   +   -   -   -       PR  protected read
    PR   +   +   -   +   -   -       PW  protected write
    PW   +   +   -   -   -   -       EX  exclusive
    EX   +   -   -   -   -   -

It survives the death of any master. It is given up with its process, or when
that can not reach the masters for the dead threshold (3.5 s).

Files are locked through a mount, with flock(2) and fcntl(2).`,
		`  ashlar lock run backup -- /usr/local/bin/backup
  ashlar lock list`,
		newLockRunCmd(g), newLockHoldCmd(g), newLockListCmd(g), newLockCTDBCmd(g))
}

// lockOptions are how a named lock is acquired.
type lockOptions struct {
	mode    string
	timeout string
}

func (o *lockOptions) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.mode, "mode", "EX", "NL, CR, CW, PR, PW or EX")
	c.Flags().StringVar(&o.timeout, "timeout", "", "how long to wait for the lock, such as 30s; 0 does not wait (default: as long as it takes)")
	_ = c.RegisterFlagCompletionFunc("mode", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for m := client.NL; m <= client.EX; m++ {
			out = append(out, m.String())
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
}

// parse returns the mode and how long to wait; below 0 is for ever.
func (o *lockOptions) parse() (client.LockMode, time.Duration, error) {
	mode, ok := wire.ParseLockMode(strings.ToUpper(o.mode))
	if !ok {
		return 0, 0, usagef("--mode %q: want NL, CR, CW, PR, PW or EX", o.mode)
	}
	if o.timeout == "" {
		return mode, -1, nil
	}
	d, err := time.ParseDuration(o.timeout)
	if err != nil || d < 0 {
		return 0, 0, usagef("--timeout %q: want a time such as 30s, or 0", o.timeout)
	}
	return mode, d, nil
}

// acquire gets a named lock, or says who has it.
func (o *lockOptions) acquire(ctx context.Context, c *client.Client, name string) (*client.Lock, error) {
	mode, wait, err := o.parse()
	if err != nil {
		return nil, err
	}
	var l *client.Lock
	switch {
	case wait == 0:
		tctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		l, err = c.TryLock(tctx, name, mode)
	case wait < 0:
		l, err = c.Lock(ctx, name, mode)
	default:
		wctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if l, err = c.Lock(wctx, name, mode); err != nil && wctx.Err() != nil {
			err = nil
		}
	}
	switch {
	case ctx.Err() != nil && l == nil:
		return nil, exitError{exitFailed, fmt.Errorf("lock %s: interrupted before it was granted", name)}
	case err != nil || l != nil:
		return l, err
	}
	return nil, heldByOthers(ctx, c, name)
}

// heldByOthers is why a named lock could not be had in time: somebody holds it,
// or waits for it longer, or no master answers.
func heldByOthers(ctx context.Context, c *client.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := c.Locks(ctx)
	if err != nil {
		return err
	}
	var held, waits []string
	for _, s := range all {
		switch who := fmt.Sprintf("%s in %v", s.Client, s.Mode); {
		case s.Name != name:
		case s.Waiting:
			waits = append(waits, who)
		default:
			held = append(held, who)
		}
	}
	var why []string
	if len(held) > 0 {
		why = append(why, "held by "+strings.Join(held, ", "))
	}
	if len(waits) > 0 {
		why = append(why, "waited for by "+strings.Join(waits, ", "))
	}
	if len(why) == 0 {
		why = append(why, "held by another until just now")
	}
	return hintf(exitError{exitUnavailable, fmt.Errorf("lock %s: %s", name, strings.Join(why, "; "))},
		"`ashlar lock list %s` shows who holds it and who waits; give it longer with --timeout", name)
}

// dialClient opens a session for one command.
func (g *global) dialClient(ctx context.Context) (*client.Client, error) {
	conf, err := client.LoadConfig(g.cluster)
	if err != nil {
		return nil, err
	}
	conf.Name = commandName()
	dctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return client.DialConfig(dctx, conf)
}

// closeClient ends a session, and with it what it holds.
func closeClient(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.Close(ctx) // otherwise the masters notice by themselves
}

// completeLocks offers the locks there are, or one by name before a command.
func (g *global) completeLocks(names bool) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(c *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		if names && len(a) > 0 {
			return nil, cobra.ShellCompDirectiveDefault // the command to run
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
		defer cancel()
		all, err := g.locks(ctx)
		if err != nil { // without an answer there is nothing to offer
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for i := range all {
			if e := entryOfLock(&all[i]); (e.Kind == "name" || !names) && !slices.Contains(out, e.Lock) {
				out = append(out, e.Lock)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func newLockListCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list [NAME | VOLUME:PATH]...", Short: "list locks, their owners and who waits",
		Long: `Lists every lock that is held and everybody who waits for one: named locks, and
locks of files with class (posix, ofd, flock), type and range of bytes. With
names or paths, only those are shown.

The kernel does not tell a mount whether a range was locked by a process or
through an open file description: both are shown as posix, those of programs
that use the Go SDK as ofd. In JSON a value block is base64.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar lock list
  ashlar lock list main:/db/data -json`,
		ValidArgsFunction: g.completeLocks(false),
		RunE:              func(c *cobra.Command, a []string) error { return runLockList(c.Context(), g, a) },
	}
}

// lockEntry is a lock as it is printed.
type lockEntry struct {
	Lock    string    `json:"lock"` // name, or VOLUME:PATH
	Kind    string    `json:"kind"` // name, posix, ofd, flock
	Mode    string    `json:"mode"` // NL … EX; shared, exclusive
	Inode   uint64    `json:"inode,omitempty"`
	Start   uint64    `json:"start,omitempty"`
	End     *uint64   `json:"end,omitempty"` // missing: to the end of the file, wherever that is
	Waiting bool      `json:"waiting"`
	Session uint64    `json:"session"`
	Client  string    `json:"client"`
	PID     uint32    `json:"pid,omitempty"`
	Owner   uint64    `json:"owner"`
	Since   time.Time `json:"since"`
	Value   []byte    `json:"value,omitempty"`
	Valid   *bool     `json:"value_valid,omitempty"`
}

func entryOfLock(s *client.LockStatus) lockEntry {
	e := lockEntry{
		Waiting: s.Waiting, Session: uint64(s.Session), Client: s.Client, Since: time.Unix(0, s.Since).UTC(),
	}
	if s.Name != "" {
		e.Lock, e.Kind, e.Mode, e.Owner, e.Value = s.Name, "name", s.Mode.String(), s.Holder, s.Value
		if !s.Waiting {
			e.Valid = &s.Valid
		}
		return e
	}
	e.Lock, e.Kind, e.Mode = s.Path, s.Lock.Class.String(), s.Lock.Type.String()
	if e.Lock == "" {
		e.Lock = "(removed)"
	}
	e.Inode, e.Owner, e.PID, e.Start = uint64(s.Lock.Inode), s.Lock.Owner, s.Lock.PID, s.Lock.Start
	if s.Lock.End != wire.LockEnd {
		e.End = &s.Lock.End
	}
	return e
}

// span is the range of a lock for people.
func (e *lockEntry) span() string {
	switch {
	case e.Kind == "name" || e.Kind == "flock":
		return ""
	case e.End == nil && e.Start == 0:
		return "all"
	case e.End == nil:
		return fmt.Sprintf("%d-", e.Start)
	}
	return fmt.Sprintf("%d-%d", e.Start, *e.End)
}

// locks lists all locks.
func (g *global) locks(ctx context.Context) (all []wire.LockStatus, err error) {
	err = g.admin(func(a *admin) error {
		for m := (&wire.ListLocks{Limit: 500}); ; {
			var r wire.ListLocksReply
			if err := a.call(ctx, m, &r); err != nil {
				return err
			}
			all = append(all, r.Locks...)
			if m.After = r.Next; m.After == nil {
				return nil
			}
		}
	})
	return all, err
}

func runLockList(ctx context.Context, g *global, only []string) error {
	all, err := g.locks(ctx)
	if err != nil {
		return err
	}
	entries := []lockEntry{}
	for i := range all {
		if e := entryOfLock(&all[i]); len(only) == 0 || slices.Contains(only, e.Lock) {
			entries = append(entries, e)
		}
	}
	if len(only) > 0 && len(entries) == 0 {
		return hintf(ashlar.E("lock", ashlar.NotExist, strings.Join(only, ", "), nil), "nobody holds it; `ashlar lock list` shows all locks")
	}
	entries = besideEachOther(entries)
	if g.json {
		return printJSON(g.Out, entries)
	}
	printLocks(g, entries)
	return nil
}

// besideEachOther puts whoever waits for a lock below those who hold it.
func besideEachOther(entries []lockEntry) []lockEntry {
	type what struct {
		lock  string
		inode uint64
	}
	first := map[what]int{}
	for i, e := range entries {
		if _, ok := first[what{e.Lock, e.Inode}]; !ok {
			first[what{e.Lock, e.Inode}] = i
		}
	}
	slices.SortStableFunc(entries, func(a, b lockEntry) int {
		return first[what{a.Lock, a.Inode}] - first[what{b.Lock, b.Inode}]
	})
	return entries
}

func printLocks(g *global, entries []lockEntry) {
	if len(entries) == 0 {
		g.sayf("nothing is locked")
		return
	}
	var rows []table.Row
	for _, e := range entries {
		state, pid := "held", ""
		if e.Waiting {
			state = "waits"
		}
		if e.PID != 0 {
			pid = fmt.Sprint(e.PID)
		}
		value := ""
		if e.Valid != nil && (len(e.Value) > 0 || !*e.Valid) {
			if value = fmt.Sprintf("%q", e.Value); !*e.Valid {
				value += " (not valid)"
			}
		}
		rows = append(rows, table.Row{e.Lock, e.Kind, e.Mode, e.span(), state, e.Client, e.Session, pid, e.Since.Local().Format(time.DateTime), value})
	}
	printTable(g.Out, table.Row{"lock", "kind", "mode", "bytes", "state", "by", "session", "pid", "since", "value"}, rows)
}
