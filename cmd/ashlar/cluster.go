package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// callTimeout is how long one administrative request may take, a leader
// election in the middle included.
const callTimeout = 15 * time.Second

// closeTimeout is how long the end of a session may take.
const closeTimeout = time.Second

// admin talks to a cluster's leader for one command.
type admin struct {
	conf   *config.Client
	rpc    *rpc.Client
	leader *masterconn.Leader
	conn   *masterconn.Conn // a session, for changes; nil until one is made
}

// connect reads the client file and prepares; nothing is dialed yet.
func (g *global) connect() (*admin, error) {
	c, err := config.FindClient(g.cluster, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	return newAdmin(c), nil
}

func newAdmin(c *config.Client) *admin {
	client := rpc.NewClient(rpc.Identity{
		Cluster: c.Cluster, Role: wire.RoleClient, Name: commandName(), Incarnation: newIncarnation(), Secret: c.Secret,
	}, rpc.ClientOptions{})
	return &admin{conf: c, rpc: client, leader: masterconn.NewLeader(client, c.Masters, clock.Real, slog.New(slog.DiscardHandler))}
}

// Close ends the session and the connections.
func (a *admin) Close() {
	if a.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = a.conn.Close(ctx) // otherwise the masters notice by themselves
	}
	a.rpc.Close()
}

// commandName is what the cluster shows for this process.
func commandName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

func newIncarnation() ashlar.Incarnation {
	var b [8]byte
	rand.Read(b[:])                                                 // never fails
	return ashlar.Incarnation(binary.LittleEndian.Uint64(b[:]) | 1) // never zero
}

// call asks the leader one thing. A change is made under a session, so that
// it takes effect once however often it is sent (I-3). reply may be nil.
func (a *admin) call(ctx context.Context, req, reply wire.Message) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if reply == nil {
		reply = &wire.Empty{}
	}
	if !wire.Changes(req) {
		return a.leader.Call(ctx, req, reply)
	}
	if a.conn == nil {
		conn, err := masterconn.Dial(ctx, masterconn.Config{
			RPC: a.rpc, Masters: a.conf.Masters, Name: commandName(), Clock: clock.Real, Logger: slog.New(slog.DiscardHandler),
			Opens: func() []ashlar.Inode { return nil },
		})
		if err != nil {
			return err
		}
		a.conn = conn
	}
	return a.conn.Do(ctx, ashlar.Cred{Checked: true}, req, reply)
}

// Status asks for the state of the cluster.
func (a *admin) Status(ctx context.Context) (*wire.Status, error) {
	var r wire.StatusReply
	if err := a.call(ctx, &wire.GetStatus{}, &r); err != nil {
		return nil, err
	}
	return r.Get()
}

// EnsureVolume makes a volume unless it is there.
func (a *admin) EnsureVolume(ctx context.Context, name string) error {
	err := a.createVolume(ctx, &wire.SetVolume{Name: name, Policy: ashlar.DefaultPolicy, Mode: rootMode})
	if errors.Is(err, ashlar.Exist) {
		return nil
	}
	return err
}

func (a *admin) createVolume(ctx context.Context, m *wire.SetVolume) error {
	return a.call(ctx, m, &wire.VolumeReply{})
}

// AddMaster adds a master to the consensus group.
func (a *admin) AddMaster(ctx context.Context, name, addr string) error {
	return a.call(ctx, &wire.AddMaster{Name: name, Addr: addr}, nil)
}

// admin runs fn with a connection to the named cluster.
func (g *global) admin(fn func(*admin) error) error {
	a, err := g.connect()
	if err != nil {
		return err
	}
	defer a.Close()
	return fn(a)
}

// pollEvery is how often a waiting command asks again.
const pollEvery = 200 * time.Millisecond

// waitStatus asks for the status again and again until done says so.
// A leader that is away for a while is waited for.
func (a *admin) waitStatus(ctx context.Context, done func(*wire.Status) (bool, error)) (*wire.Status, error) {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		st, err := a.Status(ctx)
		if err == nil {
			ok, err := done(st)
			if ok || err != nil {
				return st, err
			}
		} else if !ashlar.KindOf(err).Retryable() || ctx.Err() != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return st, ctx.Err()
		case <-t.C:
		}
	}
}
