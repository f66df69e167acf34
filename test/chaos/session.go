package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// session is what a client needs to work on objects and names without caches.
type session struct {
	rpc   *rpc.Client
	conn  *masterconn.Conn
	store *object.Store
}

// open opens a session with the cluster of a client file, trying until ctx
// ends.
func open(ctx context.Context, file, name string, log *slog.Logger) (*session, error) {
	conf, err := client.LoadConfig(file)
	if err != nil {
		return nil, err
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	s := &session{}
	s.rpc = rpc.NewClient(rpc.Identity{
		Cluster: conf.Cluster, Role: wire.RoleClient, Name: name, Secret: conf.Secret,
		Incarnation: ashlar.Incarnation(binary.LittleEndian.Uint64(b[:]) | 1),
	}, rpc.ClientOptions{Logger: log})
	s.conn, err = masterconn.Dial(ctx, masterconn.Config{RPC: s.rpc, Masters: conf.Masters, Name: name, Clock: clock.Real, Logger: log})
	if err != nil {
		s.rpc.Close()
		return nil, fmt.Errorf("open a session: %w", err)
	}
	s.store = object.New(s.conn, s.rpc, object.Options{Logger: log})
	return s, nil
}

// do asks the masters as root.
func (s *session) do(ctx context.Context, m, reply wire.Message) error {
	return s.conn.Do(ctx, ashlar.Cred{Checked: true}, m, reply)
}

// make is do for something that must not have been there; an earlier try of
// the same may have made it.
func (s *session) make(ctx context.Context, m *wire.Make) (wire.Entry, error) {
	var e wire.Entry
	err := s.do(ctx, m, &e)
	if errors.Is(err, ashlar.Exist) {
		err = s.do(ctx, &wire.Lookup{Parent: m.Parent, Name: m.Name}, &e)
	}
	return e, err
}

// close ends the session in order.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.store.Close()
	_ = s.conn.Close(ctx) // otherwise the masters notice by themselves
	s.rpc.Close()
}
