package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkserver"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/faults"
	"github.com/ashlarfs/ashlar/internal/master"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// stopTimeout is how long a clean stop may take: leadership handed over, what
// was admitted finished, disks synced.
const stopTimeout = 10 * time.Second

// handOverTimeout is how much of it handing over leadership may take: when all
// nodes stop at once there is nobody to take it.
const handOverTimeout = 2 * time.Second

type serveOptions struct {
	config   string
	logLevel string
}

func newServeCmd(g *global) *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "run a node: a master, a chunkserver or both",
		Long: `Runs the roles that the configuration names until it gets SIGTERM or SIGINT,
then stops cleanly: leadership is handed over and disks are synced. Logs go to
standard error.

The configuration is a TOML file; environment variables ASHLAR_... and then
flags override it. A wrong or unknown setting is refused by line.

  cluster     = "UUID"              every node and file of a cluster names it
  secret_file = "/etc/ashlar/secret"  mode 0600, the same on every node
  name        = "n1"
  listen      = "0.0.0.0:9500"
  advertise   = "10.0.0.1:9500"     default: this node's address in masters
  data        = "/var/lib/ashlar"   identity and metadata
  rack        = ""                  for pools with failure domain rack
  roles       = ["master", "chunkserver"]
  masters     = ["n1=10.0.0.1:9500", "n2=10.0.0.2:9500", "n3=10.0.0.3:9500"]
  pprof       = ""                  host:port of a profiling endpoint

  [[disk]]                          one for each disk
  path    = "/srv/ashlar"
  labels  = ["ssd"]
  reserve = "1GiB"                  kept free; default max(1 GiB, 2 %)

  [timing]                          the same on every node
  lease = "3s"  renew = "500ms"  dead = "3.5s"  election = "800ms"
  witness = true                    take a process for dead as soon as that is
                                    proven; false where proxies or address
                                    translation stand between nodes

  [pool]                            of a new cluster
  replicas      = 2
  repair_after = "10m"             absence after which copies are made elsewhere

` + exits(exitOK, exitFailed, exitUsage),
		Example: `  ashlar serve --config /etc/ashlar/ashlar.toml
  ASHLAR_RACK=r2 ashlar serve --pprof 127.0.0.1:6060`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c.Context(), g, o, overrides(c)) },
	}
	c.Flags().StringVar(&o.config, "config", config.DefaultServeFile, "configuration file")
	c.Flags().StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	for _, s := range config.Settable {
		if s.Key != "cluster" { // --cluster names a cluster for clients
			c.Flags().String(flagName(s.Key), "", s.Help)
		}
	}
	return c
}

func flagName(key string) string { return strings.ReplaceAll(key, "_", "-") }

// overrides collects what the environment and then the flags say.
func overrides(c *cobra.Command) []config.Override {
	out := config.FromEnv(os.LookupEnv)
	for _, s := range config.Settable {
		name := flagName(s.Key)
		if f := c.Flags().Lookup(name); f != nil && f.Changed && s.Key != "cluster" {
			out = append(out, config.Override{Key: s.Key, Value: f.Value.String(), Where: "flag --" + name})
		}
	}
	return out
}

func runServe(ctx context.Context, g *global, o serveOptions, over []config.Override) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return usagef("--log-level %q: want debug, info, warn or error", o.logLevel)
	}
	c, err := config.LoadServe(o.config, over...)
	if err != nil {
		return err
	}
	n := &node{conf: c, fs: vfs.OS, clock: clock.Real,
		log: slog.New(slog.NewTextHandler(g.Err, &slog.HandlerOptions{Level: level})).With("node", c.Name)}
	if file := os.Getenv(faults.Env); file != "" {
		set, err := faults.Open(ctx, file, n.log)
		if err != nil {
			return usagef("%v", err)
		}
		n.fs, n.clock = set.FS(vfs.OS), set.Clock()
	}
	return n.run(ctx)
}

// node is one process of the cluster: a server and a client that its roles
// share.
type node struct {
	conf   *config.Serve
	fs     vfs.FS // vfs.OS but where faults are injected, as is clock
	clock  clock.Clock
	log    *slog.Logger
	server *rpc.Server
	client *rpc.Client
	leader *masterconn.Leader
	// witnesses are never closed: the masters take their end for that of the
	// process, so the system closes them when nothing of it runs any more.
	witnesses *masterconn.Witnesses
	process   ashlar.Incarnation

	master      *master.Master
	chunkserver *chunkserver.Server
	fatal       chan error // a role ended by itself
}

func (n *node) run(ctx context.Context) error {
	ln, err := n.listen()
	if err != nil {
		return err
	}
	if err := n.profile(ctx); err != nil {
		return errors.Join(err, ln.Close())
	}
	n.wire()
	if err := n.start(ctx); err != nil {
		return errors.Join(err, n.stop(), ln.Close())
	}
	n.log.Info("serving", "listen", n.conf.Listen, "advertise", n.conf.Advertise, "master", n.conf.Master,
		"chunkserver", n.conf.Chunkserver, "disks", len(n.conf.Disks), "cluster", n.conf.Cluster, "version", version)
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(ln) }()
	select {
	case <-ctx.Done():
		n.log.Info("stopping")
	case err = <-served:
	case err = <-n.fatal:
	}
	err = errors.Join(err, n.stop())
	n.log.Info("stopped", "err", err)
	return err
}

func (n *node) listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", n.conf.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, hintf(ashlar.E("listen", ashlar.Busy, n.conf.Listen, errors.New("the port is in use")),
			"is this node running already? `ss -ltnp` shows who listens; or set another listen")
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, hintf(ashlar.E("listen", ashlar.Invalid, n.conf.Listen, errors.New("no such address on this machine")),
			"`ip addr` shows its addresses; set listen to one, or to 0.0.0.0 with advertise")
	}
	return ln, err
}

// wire makes the server and client that the roles share.
func (n *node) wire() {
	n.fatal = make(chan error, 2)
	n.process = newIncarnation()
	n.log.Info("starting", "process", n.process)
	id := rpc.Identity{
		Cluster: n.conf.Cluster, Role: wire.RoleNode, Name: n.conf.Name,
		Incarnation: n.process, Secret: n.conf.Secret,
	}
	local := rpc.NewLocal()
	n.server = rpc.NewServer(id, rpc.ServerOptions{Local: local, Addrs: []string{n.conf.Advertise}, Logger: n.log})
	n.client = rpc.NewClient(id, rpc.ClientOptions{Local: local, Logger: n.log})
	var addrs []string
	for _, m := range n.conf.Masters {
		addrs = append(addrs, m.Addr)
	}
	n.leader = masterconn.NewLeader(n.client, addrs, n.clock, n.log)
}

func (n *node) start(ctx context.Context) error {
	if n.conf.Master {
		if err := n.startMaster(ctx); err != nil {
			return explainStart(err, n.conf.Data)
		}
	}
	n.witness(ctx)
	if n.conf.Chunkserver {
		return explainStart(n.startChunkserver(ctx), n.conf.Data)
	}
	return nil
}

// witness opens the connections by which the masters know that this process
// lives, before it takes its first lease.
func (n *node) witness(ctx context.Context) {
	if n.conf.Timing.NoWitness {
		n.process = 0
		return
	}
	c := masterconn.WitnessConfig{RPC: n.client, Leader: n.leader, Addr: n.conf.Advertise, Logger: n.log}
	if n.master != nil {
		c.Member = n.master.Member
	}
	n.witnesses = masterconn.KeepWitnesses(c)
	select {
	case <-n.witnesses.Tried():
	case <-ctx.Done():
	}
}

// electionTicks is how many consensus ticks an election time-out is.
const electionTicks = 16

func (n *node) startMaster(ctx context.Context) (err error) {
	c := n.conf
	conf := master.Config{
		Name: c.Name, Addr: c.Advertise, Cluster: c.Cluster, Secret: c.Secret,
		Dir: filepath.Join(c.Data, "master"), FS: n.fs, Server: n.server, RPC: n.client, Clock: n.clock, Logger: n.log,
		Lease: c.Timing.Lease, Dead: c.Timing.Dead, Renew: c.Timing.Renew,
		Replicas: c.Pool.Replicas, RepairAfter: c.Pool.RepairAfter, NoWitness: c.Timing.NoWitness,
		ConsensusTick: c.Timing.Election / electionTicks, ElectionTicks: electionTicks,
		Fatal: func(err error) {
			n.log.Error("the metadata disk failed: this process ends, others go on; mend the disk, or empty "+
				filepath.Join(c.Data, "master")+" and add this master anew", "err", err)
			os.Exit(exitFailed)
		},
		OnRemoved: func() {
			n.fatal <- hintf(ashlar.E("serve", ashlar.Fenced, c.Name, errors.New("this master was taken out of the cluster")),
				"take master out of its roles; to have it back, empty %s and run `ashlar node add %s %s`", filepath.Join(c.Data, "master"), c.Name, c.Advertise)
		},
	}
	for _, m := range c.Masters {
		conf.Masters = append(conf.Masters, master.Peer{Name: m.Name, Addr: m.Addr})
	}
	n.master, err = master.Start(ctx, conf)
	return err
}

// bootIDFile changes with every boot of the machine: what was only in its
// memory is then gone.
const bootIDFile = "/proc/sys/kernel/random/boot_id"

func (n *node) startChunkserver(ctx context.Context) (err error) {
	c := n.conf
	conf := chunkserver.Config{
		Name: c.Name, Addr: c.Advertise, Rack: c.Rack, DataDir: filepath.Join(c.Data, "chunkserver"),
		Cluster: c.Cluster, Secret: c.Secret, FS: n.fs, Server: n.server, RPC: n.client,
		Leader:  &skewWatch{Leader: n.leader, clock: n.clock, log: n.log},
		Process: n.process,
		Clock:   n.clock, Logger: n.log,
	}
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	conf.BootID = strings.TrimSpace(string(boot))
	for _, d := range c.Disks {
		if err := os.MkdirAll(d.Path, 0o755); err != nil {
			return err
		}
		conf.Disks = append(conf.Disks, chunkserver.DiskConfig{Path: d.Path, Labels: d.Labels, Reserve: d.Reserve})
	}
	n.chunkserver, err = chunkserver.Start(ctx, conf)
	return err
}

// explainStart adds what to do about the usual reasons a role does not start.
func explainStart(err error, data string) error {
	switch ashlar.KindOf(err) {
	case ashlar.Busy:
		return hintf(err, "another process has it open: is this node running already, or do two nodes share a directory?")
	case ashlar.WrongCluster:
		return hintf(err, "it belongs to another cluster: give an empty directory, or the configuration of the cluster it is of")
	case ashlar.Exist, ashlar.Fenced:
		return hintf(err, "another node has this name or directory: every node has its own name, data and disks")
	case ashlar.Version:
		return hintf(err, "it was written by a newer release: run that, or a later one")
	}
	if errors.Is(err, os.ErrPermission) {
		return hintf(err, "run as the owner of %s, or give it to this user with chown", data)
	}
	return err
}

// stop ends the roles in order: leadership first, so that the others go on
// without a pause, then the disks.
func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	if n.master != nil {
		mctx, cancel := context.WithTimeout(ctx, handOverTimeout)
		errs = append(errs, n.master.Stop(mctx))
		cancel()
	}
	if n.chunkserver != nil {
		errs = append(errs, n.chunkserver.Stop(ctx))
	}
	n.server.Close()
	n.client.Close()
	if ctx.Err() != nil {
		errs = append(errs, ashlar.E("stop", ashlar.Timeout, n.conf.Name, fmt.Errorf("after %v", stopTimeout)))
	}
	return errors.Join(errs...)
}

// profile serves profiles if the configuration asks for it.
func (n *node) profile(ctx context.Context) error {
	if n.conf.Pprof == "" {
		return nil
	}
	ln, err := net.Listen("tcp", n.conf.Pprof)
	if err != nil {
		return hintf(err, "set another pprof address, or none")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: stopTimeout}
	context.AfterFunc(ctx, func() { s.Close() })
	go func() {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("profiling endpoint ended", "err", err)
		}
	}()
	return nil
}
