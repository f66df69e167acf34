package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fakeLeader answers renewals with its own time of day.
type fakeLeader struct{ time int64 }

func (f *fakeLeader) Call(_ context.Context, _, reply wire.Message) error {
	reply.(*wire.ServerRenewReply).Time = f.time
	return nil
}

func TestAClockAnHourOffIsToldOnceAndWhenItIsRight(t *testing.T) {
	var out bytes.Buffer
	l := &fakeLeader{}
	s := &skewWatch{Leader: l, clock: clock.Real, log: slog.New(slog.NewTextHandler(&out, nil))}
	for _, off := range []time.Duration{0, time.Hour, time.Hour, 0} {
		l.time = clock.Real.Wall() - int64(off)
		if err := s.Call(t.Context(), &wire.ServerRenew{}, &wire.ServerRenewReply{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "clock is off"); n != 1 || !strings.Contains(out.String(), "ahead=1h0m0s") {
		t.Errorf("warned %d times:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "right again") {
		t.Errorf("did not say that it is right:\n%s", out.String())
	}
}
