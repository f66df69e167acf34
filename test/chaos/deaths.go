package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Lines of a node's log, by their messages: a process begins, and a master
// takes another process for dead because it was proven so.
const (
	startingMsg = "msg=starting"
	deathMsg    = `msg="a process of the cluster has ended"`
)

// proofSlack is how long before a process that ended by itself is gone it may
// be taken for dead: it closes its connections and listener first.
const proofSlack = 10 * time.Second

// proof is a death that a master took as proven.
type proof struct {
	by, of, process string
	at              time.Time
}

// deaths looks at the deaths that masters took as proven since the last look.
// Its error names those of processes that lived: no fault of links, disks or
// clocks may look like a death (docs/protocol/cluster.md).
func (c *cluster) deaths() error {
	var proofs []proof
	for _, n := range c.nodes {
		f, err := os.Open(n.file("log"))
		if err != nil {
			return err
		}
		p, err := n.readDeaths(f, c.lives)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("log of %s: %w", n.name, err)
		}
		proofs = append(proofs, p...)
	}
	var errs []error
	for _, p := range proofs {
		life := c.lives[p.process]
		if life == nil {
			errs = append(errs, fmt.Errorf("%s took process %s of %s for dead, which never began", p.by, p.process, p.of))
		} else if err := life.mayBeDead(p.at); err != nil {
			errs = append(errs, fmt.Errorf("%s took process %s of %s for dead: %w", p.by, p.process, p.of, err))
		}
	}
	c.proofs += len(proofs)
	return errors.Join(errs...)
}

// readDeaths reads on in the log of a node: which of its processes is which,
// into lives, and which deaths it took as proven.
func (n *node) readDeaths(log io.ReadSeeker, lives map[string]*process) (proofs []proof, err error) {
	if _, err := log.Seek(n.logRead, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(log)
	if err != nil {
		return nil, err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	n.logRead += int64(len(text))
	for l := range strings.Lines(string(text)) {
		l = strings.TrimSuffix(l, "\n")
		starting := strings.Contains(l, startingMsg)
		if !starting && !strings.Contains(l, deathMsg) {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, value(l, "time"))
		process := value(l, "process")
		if err != nil || process == "" {
			return nil, fmt.Errorf("%q: no process, or no time: %w", l, err)
		}
		if !starting {
			proofs = append(proofs, proof{by: n.name, of: value(l, "node"), process: process, at: at})
			continue
		}
		for _, p := range n.lives {
			if !p.began.After(at.Add(time.Millisecond)) { // logs have whole milliseconds
				lives[process] = p // the last that had begun
			}
		}
	}
	return proofs, nil
}

// value returns the last value of a key in a line of a log.
func value(line, key string) string {
	i := strings.LastIndex(" "+line, " "+key+"=")
	if i < 0 {
		return ""
	}
	v, _, _ := strings.Cut(line[i+len(key)+1:], " ")
	return v
}

// mayBeDead returns an error if the process lived at a time.
func (p *process) mayBeDead(at time.Time) error {
	end := p.killed
	switch {
	case end.IsZero() && !p.isGone():
		return fmt.Errorf("at %v, and it runs", at)
	case end.IsZero():
		end = p.ended
	}
	if p.suffered {
		end = end.Add(-proofSlack)
	}
	if at = at.Add(time.Millisecond); at.Before(end) { // logs have whole milliseconds
		return fmt.Errorf("at %v, %v too early", at, end.Sub(at))
	}
	return nil
}
