package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func newLockHoldCmd(g *global) *cobra.Command {
	var o lockOptions
	c := &cobra.Command{
		Use: "hold NAME", Short: "hold a named lock for a script, and convert it on demand",
		Long: `Acquires a lock and holds it until standard input ends, or it is interrupted.
Meanwhile it takes commands from standard input, a line each:

  convert MODE          wait until the lock can be had in another mode; one
                        conversion after the other
  convert MODE VALUE    to one that is no stronger, from PW or EX: write the
                        value block (64 bytes) with it
  release               give it up and end; a conversion that waits is refused

and prints a line for what happens:

  held MODE VALUE       after acquiring and converting; VALUE is quoted, with
                        "invalid" after it if a writer of it was lost
  waits MODE            a conversion waits for others
  wanted MODE           somebody waits for that mode, and this lock is in the way
  refused WHY           a conversion that can not be
  lost                  the lock may be another's soon: stop using what it guards

` + exits(exitOK, exitFailed, exitUsage, exitUnavailable, exitLockLost),
		Example: `  ashlar lock hold config --mode PR
  coproc ashlar lock hold config; read -r held mode value <&${COPROC[0]}`,
		Args:              args(1, 1),
		ValidArgsFunction: g.completeLocks(true),
		RunE:              func(c *cobra.Command, a []string) error { return runLockHold(c.Context(), g, o, a[0]) },
	}
	o.addFlags(c)
	return c
}

const (
	// wantedEvery is how often it is asked again who waits.
	wantedEvery = 200 * time.Millisecond
	// conversionsMax is how many conversions may wait for the one before.
	conversionsMax = 64
)

// holdEvent is a line of `lock hold`.
type holdEvent struct {
	Event string `json:"event"`
	Mode  string `json:"mode,omitempty"`
	Value []byte `json:"value,omitempty"`
	Valid *bool  `json:"value_valid,omitempty"`
	Why   string `json:"why,omitempty"`
}

type holdPrinter struct {
	g  *global
	mu sync.Mutex
}

func (p *holdPrinter) print(e holdEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.g.json {
		b, err := json.Marshal(e)
		if err == nil {
			fmt.Fprintf(p.g.Out, "%s\n", b)
		}
		return
	}
	line := e.Event
	if e.Mode != "" {
		line += " " + e.Mode
	}
	if e.Valid != nil {
		if line += fmt.Sprintf(" %q", e.Value); !*e.Valid {
			line += " invalid"
		}
	}
	if e.Why != "" {
		line += " " + e.Why
	}
	fmt.Fprintln(p.g.Out, line)
}

func (p *holdPrinter) refused(why string) { p.print(holdEvent{Event: "refused", Why: why}) }

func (p *holdPrinter) held(l *client.Lock) {
	value, valid := l.Value()
	p.print(holdEvent{Event: "held", Mode: l.Mode().String(), Value: value, Valid: &valid})
}

func runLockHold(ctx context.Context, g *global, o lockOptions, name string) error {
	if _, _, err := o.parse(); err != nil {
		return err
	}
	c, err := g.dialClient(ctx)
	if err != nil {
		return err
	}
	defer closeClient(c)
	l, err := o.acquire(ctx, c, name)
	if err != nil {
		return err
	}
	p := &holdPrinter{g: g}
	p.held(l)
	err = holdOn(ctx, g, l, p)
	uctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if gone := l.Unlock(uctx); err == nil && errors.Is(gone, ashlar.NoSession) {
		err = wasLost(l, p)
	}
	return err
}

// wasLost reports that a lock is lost.
func wasLost(l *client.Lock, p *holdPrinter) error {
	p.print(holdEvent{Event: "lost"})
	return lockLost(l)
}

func lockLost(l *client.Lock) error {
	return exitError{exitLockLost, fmt.Errorf("lock %s was lost: no master has renewed it in time", l.Name())}
}

// holdOn does what standard input says until that is to release the lock, or
// the lock is lost.
func holdOn(ctx context.Context, g *global, l *client.Lock, p *holdPrinter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watchWanted(ctx, l, p)
	commands := make(chan string, conversionsMax)
	waiting, noWait := context.WithCancel(ctx) // conversions may wait
	done := make(chan struct{})
	go func() {
		defer close(done)
		for line := range commands {
			if ctx.Err() == nil {
				holdCommand(ctx, waiting, l, p, line)
			}
		}
	}()
	err := feed(ctx, g, l, p, commands)
	close(commands)
	noWait()
	<-done
	return err
}

// feed passes commands on until there are no more.
func feed(ctx context.Context, g *global, l *client.Lock, p *holdPrinter, commands chan<- string) error {
	lines := readLines(ctx, g.In)
	for {
		select {
		case line, ok := <-lines:
			if !ok || strings.TrimSpace(line) == "release" {
				return nil
			}
			select {
			case commands <- line:
			default:
				p.refused(fmt.Sprintf("%d conversions wait already", conversionsMax))
			}
		case <-l.Lost():
			return wasLost(l, p)
		case <-ctx.Done():
			return nil
		}
	}
}

// readLines reads lines until there are no more or ctx ends.
func readLines(ctx context.Context, r io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// watchWanted prints when somebody waits, once for each mode held and wanted.
func watchWanted(ctx context.Context, l *client.Lock, p *holdPrinter) {
	var said struct{ held, wanted client.LockMode }
	for ctx.Err() == nil {
		wanted, err := l.Wanted(ctx)
		if err != nil {
			return
		}
		if held := l.Mode(); held != said.held || wanted != said.wanted {
			said.held, said.wanted = held, wanted
			p.print(holdEvent{Event: "wanted", Mode: wanted.String()})
		}
		select { // it is answered at once as long as nothing changes
		case <-time.After(wantedEvery):
		case <-ctx.Done():
		}
	}
}

// holdCommand carries out a line of standard input. A conversion waits until
// waiting ends.
func holdCommand(ctx, waiting context.Context, l *client.Lock, p *holdPrinter, line string) {
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	word, value, _ := strings.Cut(strings.TrimSpace(rest), " ")
	value = strings.TrimSpace(value)
	if verb == "" {
		return
	}
	if verb != "convert" || word == "" {
		p.refused("want: convert MODE [VALUE], or release")
		return
	}
	mode, ok := wire.ParseLockMode(strings.ToUpper(word))
	if !ok {
		p.refused("the modes are NL, CR, CW, PR, PW, EX")
		return
	}
	var err error
	if value != "" {
		err = l.ConvertWith(ctx, mode, []byte(value))
	} else {
		err = convertOrWait(ctx, waiting, l, p, mode)
	}
	if err == nil {
		p.held(l)
	} else {
		p.refused(err.Error())
	}
}

// convertOrWait converts, and says so when that has to wait.
func convertOrWait(ctx, waiting context.Context, l *client.Lock, p *holdPrinter, mode client.LockMode) error {
	if ok, err := l.TryConvert(ctx, mode); err != nil || ok {
		return err
	}
	if waiting.Err() == nil {
		p.print(holdEvent{Event: "waits", Mode: mode.String()})
		if err := l.Convert(waiting, mode); err == nil || waiting.Err() == nil {
			return err
		}
	}
	return fmt.Errorf("lock %s: held by others in what excludes %v", l.Name(), mode)
}
