package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar/internal/clock"
)

// userTimeout is how long sent bytes may stay unacknowledged before the
// kernel gives a connection up.
const userTimeout = 10 * time.Second

// tune sets what every connection has set. Errors do not matter: a connection
// that is not TCP works without.
func tune(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetNoDelay(true)
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 5})
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		})
	}
}

// temporary tells whether accepting may work again.
func temporary(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// pause waits for d, false if the server was closed meanwhile.
func (s *Server) pause(d time.Duration) bool { return wait(s.ctx, s.o.Clock, d) }

// wait returns true after d, false as soon as ctx is done.
func wait(ctx context.Context, clk clock.Clock, d time.Duration) bool {
	ch := make(chan struct{})
	stop := clk.AfterFunc(d, func() { close(ch) })
	defer stop()
	select {
	case <-ch:
		return true
	case <-ctx.Done():
		return false
	}
}

// limitedLog writes at most one line per logEvery and says how many it left
// out.
type limitedLog struct {
	log   *slog.Logger
	clock clock.Clock

	mu      sync.Mutex
	any     bool
	last    clock.Time
	dropped int
}

func (l *limitedLog) warn(msg string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	if l.any && now.Sub(l.last) < logEvery {
		l.dropped++
		return
	}
	if l.dropped > 0 {
		args = append(args, "dropped", l.dropped)
	}
	l.any, l.last, l.dropped = true, now, 0
	l.log.Warn(msg, args...)
}
