package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"log/syslog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/fusefs"
)

// Time-outs of mounting.
const (
	// mountConnectTimeout is how long a mount waits for the cluster to answer.
	mountConnectTimeout = 60 * time.Second
	// softTimeout is how long a request of a soft mount takes at most.
	softTimeout = 30 * time.Second
	// detachTimeout is how long an unmounted file system that is still in use
	// is served.
	detachTimeout = 5 * time.Second
)

// mountOptions are the flags of ashlar mount, which -o sets too.
type mountOptions struct {
	device, dir  string
	foreground   bool
	soft         bool
	timeout      time.Duration
	connect      time.Duration
	pprof        string
	log          string
	list         []string // -o
	fake, sloppy bool     // of mount.ashlar
	fuse         fusefs.Options
}

func newMountCmd(g *global) *cobra.Command {
	o := mountOptions{timeout: softTimeout, connect: mountConnectTimeout}
	c := &cobra.Command{
		Use:   "mount CLUSTER:VOLUME DIR",
		Short: "mount a volume",
		Long: `Mounts a volume at a directory. CLUSTER is a client file or a list of master
addresses; without it (":VOLUME", or "VOLUME") the usual cluster is meant. The
command returns when the volume is mounted, and a process in the background
serves it until it is unmounted (umount DIR) or gets SIGTERM or SIGINT: then it
flushes, unmounts and ends; a second signal ends it at once.

A mount waits for a cluster that is away for as long as it takes; with soft,
requests fail after the time-out (ETIMEDOUT, or EIO for buffered data).

As mount.ashlar in /sbin it serves mount -t ashlar and fstab:

  /etc/ashlar/client.toml:main  /srv/main  ashlar  _netdev  0 0

Options for -o, separated by commas:

  ro, rw            read-only or not
  hard, soft        wait for ever, or give up
  timeout=SECONDS   of soft; default 30
  attr_timeout=S    the longest that the kernel keeps attributes, and
  entry_timeout=S   names, without asking this process; they are right for as
                    long as it does, so there is no need to change this
  allow_other       other users may enter (default); noallow_other: they may not
  fsname=TEXT       what df shows; default CLUSTER:VOLUME
  log=FILE          where to log; default the system log
  pprof=ADDRESS     serve profiles on a loopback address
  relatime, noatime, strictatime
                    which reads change access times: the first after a change or
                    in a day (default), none, or all
  nodev, nosuid, noexec, dev, suid, exec, sync, dirsync

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar mount ./try/client.toml:main /mnt
  mount -t ashlar -o soft,timeout=10 10.0.0.1:9500,10.0.0.2:9500:main /mnt`,
		Args: args(2, 2),
		RunE: func(c *cobra.Command, a []string) error {
			o.device, o.dir = a[0], a[1]
			return runMount(c.Context(), g, &o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.foreground, "foreground", "f", false, "stay in the foreground and log to standard error")
	f.StringSliceVarP(&o.list, "options", "o", nil, "mount options, see above")
	f.BoolVar(&o.soft, "soft", false, "give up requests after --timeout")
	f.DurationVar(&o.timeout, "timeout", softTimeout, "how long a request of a soft mount may take")
	f.DurationVar(&o.connect, "connect-timeout", mountConnectTimeout, "how long to try to reach the cluster")
	f.StringVar(&o.pprof, "pprof", "", "serve profiles on this loopback address")
	f.StringVar(&o.log, "log", "", "file to log to")
	f.BoolVar(&o.fuse.ReadOnly, "read-only", false, "refuse changes")
	f.BoolVar(&o.fake, "fake", false, "check the options, mount nothing")
	f.BoolVar(&o.sloppy, "sloppy", false, "ignore unknown options")
	return c
}

// mountHelperArgs turns what mount(8) gives a helper, "DEVICE DIR [-sfnv]
// [-N NAMESPACE] [-o OPTIONS] [-t TYPE]", into arguments of ashlar mount.
func mountHelperArgs(in []string) []string {
	out := []string{"mount"}
	for k := 0; k < len(in); k++ {
		a := in[k]
		if len(a) < 2 || a[0] != '-' || strings.HasPrefix(a, "--") {
			out = append(out, a)
			continue
		}
		for j := 1; j < len(a); j++ {
			switch a[j] {
			case 's':
				out = append(out, "--sloppy")
			case 'f':
				out = append(out, "--fake")
			case 'o', 'N', 't': // the value is the rest, or the next argument
				v := a[j+1:]
				if v == "" && k+1 < len(in) {
					k++
					v = in[k]
				}
				if a[j] == 'o' {
					out = append(out, "-o", v)
				}
				j = len(a)
			}
		}
	}
	return out
}

// ignored are options for mount(8) and fstab alone.
var ignored = map[string]bool{
	"rw": true, "hard": true, "defaults": true, "_netdev": true, "auto": true, "noauto": true, "nofail": true,
	"user": true, "nouser": true, "users": true, "owner": true, "group": true, "allow_other": true,
}

// passed are options for the kernel.
var passed = map[string]bool{
	"nodev": true, "nosuid": true, "noexec": true, "dev": true, "suid": true, "exec": true,
	"sync": true, "dirsync": true,
}

// finish applies -o.
func (o *mountOptions) finish() error {
	o.fuse.Source, o.fuse.Dir = o.device, o.dir
	o.fuse.AttrTimeout, o.fuse.EntryTimeout = fusefs.DefaultTimeout, fusefs.DefaultTimeout
	for _, item := range o.list {
		key, value, _ := strings.Cut(item, "=")
		var err error
		switch key {
		case "ro":
			o.fuse.ReadOnly = true
		case "soft":
			o.soft = true
		case "timeout":
			o.timeout, err = seconds(value)
		case "attr_timeout":
			o.fuse.AttrTimeout, err = seconds(value)
		case "entry_timeout":
			o.fuse.EntryTimeout, err = seconds(value)
		case "noallow_other":
			o.fuse.OwnerOnly = true
		case "relatime":
			o.fuse.AccessTimes = fusefs.Relatime
		case "strictatime":
			o.fuse.AccessTimes = fusefs.Strictatime
		case "noatime":
			o.fuse.AccessTimes = fusefs.Noatime
			o.fuse.Extra = append(o.fuse.Extra, key) // for /proc/mounts
		case "fsname":
			o.fuse.Source = value
		case "log":
			o.log = value
		case "pprof":
			o.pprof = value
		case "foreground":
			o.foreground = true
		default:
			switch {
			case passed[key]:
				o.fuse.Extra = append(o.fuse.Extra, key)
			case ignored[key] || item == "" || o.sloppy || strings.HasPrefix(key, "x-") || key == "comment":
			default:
				return usagef("unknown mount option %q; see `ashlar mount --help`", item)
			}
		}
		if err != nil {
			return usagef("mount option %s: %v", item, err)
		}
	}
	if o.soft {
		if o.timeout <= 0 {
			return usagef("a soft mount needs a time-out above 0")
		}
		o.fuse.Timeout = o.timeout
	}
	return nil
}

// seconds parses "10", "0.5" or "200ms".
func seconds(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("want seconds, such as 10 or 0.5")
	}
	return d, nil
}

// splitDevice takes CLUSTER:VOLUME apart.
func splitDevice(s string) (cluster, volume string, err error) {
	k := strings.LastIndexByte(s, ':')
	cluster, volume = s[:max(k, 0)], s[k+1:]
	if volume == "" || strings.Contains(volume, "/") {
		return "", "", usagef("%q: want CLUSTER:VOLUME, such as /etc/ashlar/client.toml:main", s)
	}
	return cluster, volume, nil
}

func runMount(ctx context.Context, g *global, o *mountOptions) error {
	if err := o.finish(); err != nil {
		return err
	}
	cluster, volume, err := splitDevice(o.device)
	if err != nil {
		return err
	}
	if cluster == "" {
		cluster = g.cluster
	}
	conf, err := client.LoadConfig(cluster)
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	o.fuse.Dir = o.dir
	if err := fusefs.Mountable(o.dir); err != nil {
		return err
	}
	if o.fake {
		return nil
	}
	ready := readyPipe()
	if !o.foreground && ready == nil {
		return inBackground(ctx)
	}
	return serveMount(ctx, g, o, conf, volume, ready)
}

// serveMount mounts and serves until it is unmounted or told to stop.
func serveMount(ctx context.Context, g *global, o *mountOptions, conf client.Config, volume string, ready *os.File) error {
	log, err := o.logger(g, ready != nil)
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // "" is good enough
	conf.Name, conf.Logger, conf.Timeout = host+":"+o.dir, log, o.fuse.Timeout
	if o.pprof != "" {
		if err := serveProfiles(ctx, o.pprof, log); err != nil {
			return err
		}
	}
	c, fs, m, err := o.mount(ctx, conf, volume)
	if err != nil {
		return err
	}
	if ready != nil {
		if err := toBackground(ready); err != nil {
			return err
		}
	} else {
		g.sayf("mounted %s at %s", o.device, o.dir)
	}
	gone := make(chan struct{})
	go func() {
		m.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		signal.Reset(syscall.SIGINT, syscall.SIGTERM) // the next one ends the process
		unmount(log, m, gone)
	}
	err = fs.FlushAll(context.Background()) // for as long as it takes: a second signal ends it
	last, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return errors.Join(err, c.Close(last))
}

// mount reaches the cluster and mounts.
func (o *mountOptions) mount(ctx context.Context, conf client.Config, volume string) (*client.Client, *file.FS, *fusefs.Mount, error) {
	dctx, cancel := context.WithTimeout(ctx, o.connect)
	defer cancel()
	c, err := client.DialConfig(dctx, conf)
	if err != nil {
		return nil, nil, nil, err
	}
	o.fuse.Logger = conf.Logger
	kernel := fusefs.New(o.fuse)
	fs, err := c.OpenFS(dctx, volume, kernel.Drop)
	if err == nil {
		var m *fusefs.Mount
		if m, err = kernel.Mount(fs); err == nil {
			return c, fs, m, nil
		}
	}
	if cerr := c.Close(dctx); cerr != nil {
		conf.Logger.Warn("session not closed in order", "err", cerr)
	}
	return nil, nil, nil, err
}

// unmount takes the mount away; one that is in use goes on for a while, unseen.
func unmount(log *slog.Logger, m *fusefs.Mount, gone <-chan struct{}) {
	busy, err := m.Unmount()
	if err != nil {
		log.Error("unmount failed", "err", err)
		return
	}
	if busy {
		log.Warn("in use: detached, and served for a little while", "for", detachTimeout)
	}
	t := time.NewTimer(detachTimeout)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	}
}

// logger logs to a file, to standard error in the foreground, or to the
// system's log.
func (o *mountOptions) logger(g *global, background bool) (*slog.Logger, error) {
	switch {
	case o.log != "":
		f, err := os.OpenFile(o.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, err
		}
		return slog.New(slog.NewTextHandler(f, nil)), nil
	case !background:
		return slog.New(slog.NewTextHandler(g.Err, nil)), nil
	}
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_WARNING, "ashlar-mount")
	if err != nil { // no system log here
		return slog.New(slog.DiscardHandler), nil
	}
	return slog.New(slog.NewTextHandler(w, nil)), nil
}

// serveProfiles serves net/http/pprof on a loopback address.
func serveProfiles(ctx context.Context, addr string, log *slog.Logger) error {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("pprof %q: want a loopback address, such as 127.0.0.1:6061", addr)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return ashlar.E("pprof", ashlar.Busy, addr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: detachTimeout}
	go func() {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("profiling endpoint ended", "err", err)
		}
	}()
	return nil
}
