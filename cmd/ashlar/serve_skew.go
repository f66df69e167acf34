package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar/internal/chunkserver"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// skewWatch is a chunkserver's way to the leader that compares clocks on the
// way. Leases do not depend on the time of day; times of files do, and so does
// whoever reads two nodes' logs side by side.
type skewWatch struct {
	chunkserver.Leader
	clock clock.Clock
	log   *slog.Logger
	off   atomic.Bool // the clock was off at the last look
}

// Call implements chunkserver.Leader.
func (s *skewWatch) Call(ctx context.Context, req, reply wire.Message) error {
	err := s.Leader.Call(ctx, req, reply)
	if err != nil {
		return err
	}
	switch r := reply.(type) {
	case *wire.RegisterReply:
		s.look(r.Time)
	case *wire.ServerRenewReply:
		s.look(r.Time)
	}
	return nil
}

// look warns when the clock goes off, and says when it is right again.
func (s *skewWatch) look(masters int64) {
	skew := time.Duration(s.clock.Wall() - masters)
	off := skew.Abs() > config.ClockSkewMax
	if s.off.Swap(off) == off {
		return
	}
	if off {
		s.log.Warn("this node's clock is off; data is safe, but times of files will be wrong: is it synchronised (chronyc tracking, timedatectl)?",
			"ahead", skew.Round(time.Second))
		return
	}
	s.log.Info("this node's clock is right again")
}
