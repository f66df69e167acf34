// Package client is the Go SDK of Ashlar: it reaches a cluster, its volumes
// and their files from any Go program, without a mount.
//
//	c, err := client.Dial(ctx, "/etc/ashlar/client.toml")
//	v, err := c.Volume(ctx, "main")
//	err = v.WriteFile("dir/name", data, 0o644)
//	err = fs.WalkDir(v, ".", walk) // a Volume is an fs.FS
//
// Names are those of package io/fs: slash-separated, not rooted, "." for the
// root. Files behave as on a local file system, with the guarantees of package
// file: data is buffered until Sync or Close or until another client wants to
// see it, and what a call did is seen by every call that begins afterwards,
// whoever makes it.
// Requests wait for a cluster that is away until the context of the volume
// ends (WithContext); the default context never does.
//
// All types may be used from several goroutines.
package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Config is what is needed to reach a cluster.
type Config struct {
	// Cluster may be zero: any cluster that knows Secret is accepted.
	Cluster ashlar.ClusterID
	// Masters are addresses host:port; one that works is enough.
	Masters []string
	Secret  []byte
	// Name is shown in the list of sessions; the host and process by default.
	Name   string
	Logger *slog.Logger
	// Cred is on whose behalf files are used; the process's by default.
	Cred *ashlar.Cred
	// Timeout bounds the writing of buffered data; 0 waits for ever.
	Timeout time.Duration
}

// LoadConfig finds a cluster as the command line does: cluster is a client
// file or a list of master addresses separated by commas; if empty,
// ASHLAR_CLUSTER and then /etc/ashlar/client.toml are used.
func LoadConfig(cluster string) (Config, error) {
	c, err := config.FindClient(cluster, os.LookupEnv)
	if err != nil {
		return Config{}, err
	}
	return Config{Cluster: c.Cluster, Masters: c.Masters, Secret: c.Secret}, nil
}

// Client is a session with a cluster.
type Client struct {
	conf  Config
	rpc   *rpc.Client
	conn  *masterconn.Conn
	store *object.Store
	meta  file.Meta

	mu  sync.Mutex
	fss []*file.FS

	returns returns
}

// Dial opens a session with the cluster that LoadConfig finds. It tries until
// ctx ends.
func Dial(ctx context.Context, cluster string) (*Client, error) {
	conf, err := LoadConfig(cluster)
	if err != nil {
		return nil, err
	}
	return DialConfig(ctx, conf)
}

// DialConfig opens a session. It tries until ctx ends.
func DialConfig(ctx context.Context, conf Config) (*Client, error) {
	if conf.Name == "" {
		host, _ := os.Hostname() // "" is good enough
		conf.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	if conf.Logger == nil {
		conf.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{conf: conf}
	c.rpc = rpc.NewClient(rpc.Identity{
		Cluster: conf.Cluster, Role: wire.RoleClient, Name: conf.Name, Secret: conf.Secret, Incarnation: newIncarnation(),
	}, rpc.ClientOptions{Logger: conf.Logger})
	conn, err := masterconn.Dial(ctx, masterconn.Config{
		RPC: c.rpc, Masters: conf.Masters, Name: conf.Name, Clock: clock.Real, Logger: conf.Logger,
		Opens: c.opens, OnLost: c.lost, Leases: c.leases, OnRecall: c.recall,
	})
	if err != nil {
		c.rpc.Close()
		return nil, err
	}
	c.conn, c.meta = conn, conn
	c.store = object.New(conn, c.rpc, object.Options{Logger: conf.Logger})
	return c, nil
}

func newIncarnation() ashlar.Incarnation {
	var b [8]byte
	rand.Read(b[:])                                                 // never fails
	return ashlar.Incarnation(binary.LittleEndian.Uint64(b[:]) | 1) // never zero
}

// volumes returns the volumes in use.
func (c *Client) volumes() []*file.FS {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*file.FS(nil), c.fss...)
}

func (c *Client) opens() []ashlar.Inode {
	var out []ashlar.Inode
	for _, f := range c.volumes() {
		out = append(out, f.Opens()...)
	}
	return out
}

func (c *Client) lost() {
	for _, f := range c.volumes() {
		f.SessionLost()
	}
}

// Close flushes what is buffered and ends the session. When ctx ends first,
// the rest is lost.
func (c *Client) Close(ctx context.Context) error {
	var first error
	for _, f := range c.volumes() {
		if err := f.Close(ctx); err != nil && first == nil {
			first = err
		}
	}
	c.store.Close()
	if err := c.conn.Close(ctx); err != nil && first == nil {
		first = err
	}
	c.rpc.Close()
	return first
}

// Session returns the number of the session, 0 while it is being replaced.
func (c *Client) Session() ashlar.SessionID { return c.conn.Session() }

// OpenFS finds a volume and returns its inode-level view, for front ends such
// as a kernel mount. drop makes them drop what they have cached of an inode, or
// part of its data.
func (c *Client) OpenFS(ctx context.Context, name string, drop func(ino ashlar.Inode, off, n uint64)) (*file.FS, error) {
	var r wire.VolumeReply
	err := c.meta.Do(ctx, ashlar.Cred{Checked: true}, &wire.FindVolume{Name: name}, &r)
	if errors.Is(err, ashlar.NotExist) {
		return nil, c.noVolume(ctx, name, err)
	}
	if err != nil {
		return nil, err
	}
	f := file.New(file.Options{
		Meta: c.meta, Data: c.store, Volume: r, Logger: c.conf.Logger, Timeout: c.conf.Timeout, Lease: c.conn.LeaseLeft, Drop: drop,
		WriteBehind: drop != nil,
	})
	c.mu.Lock()
	c.fss = append(c.fss, f)
	c.mu.Unlock()
	return f, nil
}

// noVolume adds the names there are to the refusal of one.
func (c *Client) noVolume(ctx context.Context, name string, err error) error {
	st, serr := c.Status(ctx)
	if serr != nil {
		return err
	}
	var names []string
	for _, v := range st.Volumes {
		names = append(names, v.Name)
	}
	what := "there is none; make one with `ashlar volume create " + name + "`"
	if len(names) > 0 {
		what = "there are: " + strings.Join(names, ", ")
	}
	return ashlar.E("volume", ashlar.NotExist, name, errors.New(what))
}

// Volume opens a volume by name.
func (c *Client) Volume(ctx context.Context, name string) (*Volume, error) {
	f, err := c.OpenFS(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	cred := c.conf.Cred
	if cred == nil {
		cred = processCred()
	}
	return &Volume{c: c, fs: f, root: f.Root(), cred: *cred, ctx: context.Background()}, nil
}

// processCred is the identity of this process.
func processCred() *ashlar.Cred {
	c := &ashlar.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	groups, err := os.Getgroups()
	if err != nil {
		return c
	}
	for _, g := range groups {
		if len(c.Groups) < ashlar.GroupsMax {
			c.Groups = append(c.Groups, uint32(g))
		}
	}
	return c
}
