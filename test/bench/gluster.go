package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/test/devup"
)

// gluster is GlusterFS with one volume of two copies, from the distribution's
// packages.
type gluster struct {
	root   string
	server *exec.Cmd
	mount  *exec.Cmd
}

const (
	// glusterHost is a loopback address that the command line takes for that
	// of a peer: it refuses localhost and 127.0.0.1.
	glusterHost   = "127.1.1.1"
	glusterVolume = "ashlarbench"
)

var glusterPrograms = []string{"glusterd", "gluster", "glusterfs"}

func (g *gluster) name() string { return "gluster" }
func (g *gluster) mnt() string  { return filepath.Join(g.root, "mnt") }
func (g *gluster) dir() string  { return filepath.Join(g.mnt(), "w") }

// start runs glusterd and, through it, two bricks, all of them listening on a
// loopback address alone.
func (g *gluster) start(ctx context.Context) error {
	state := filepath.Join(g.root, "glusterd")
	for _, d := range []string{state, g.mnt(), "/var/run/gluster", "/var/log/glusterfs"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	conf := filepath.Join(g.root, "glusterd.vol")
	err := os.WriteFile(conf, fmt.Appendf(nil, `volume management
    type mgmt/glusterd
    option working-directory %s
    option transport-type socket
    option transport.socket.bind-address %s
    option transport.socket.keepalive-time 10
    option transport.socket.keepalive-interval 2
    option transport.socket.read-fail-log off
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option event-threads 1
    option max-port 60999
end-volume
`, state, glusterHost), 0o644)
	if err != nil {
		return err
	}
	g.server, err = daemon(filepath.Join(g.root, "glusterd.log"), "glusterd", "--no-daemon", "-f", conf,
		"-l", filepath.Join(g.root, "glusterd-own.log"), "-p", filepath.Join(g.root, "glusterd.pid"))
	if err != nil {
		return err
	}
	if err := await(ctx, "glusterd", 30*time.Second, func() bool { return g.cli("volume", "list") == nil }); err != nil {
		return err
	}
	create := []string{"volume", "create", glusterVolume, "replica", "2"}
	for i := 1; i <= 2; i++ {
		b := filepath.Join(g.root, fmt.Sprintf("brick%d", i))
		if err := os.MkdirAll(b, 0o755); err != nil {
			return err
		}
		create = append(create, glusterHost+":"+b)
	}
	if err := g.cli(append(create, "force")...); err != nil {
		return err
	}
	if err := g.cli("volume", "start", glusterVolume); err != nil {
		return err
	}
	return g.remount(ctx)
}

// cli runs a command of the administrator's tool.
func (g *gluster) cli(args ...string) error {
	out, err := exec.Command("gluster", append([]string{"--mode=script"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("gluster %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (g *gluster) remount(ctx context.Context) error {
	unmount(g.mnt(), g.mount)
	var err error
	g.mount, err = daemon(filepath.Join(g.root, "mount.log"), "glusterfs", "--no-daemon", "--process-name", "fuse",
		"--volfile-server="+glusterHost, "--volfile-id="+glusterVolume, "-l", filepath.Join(g.root, "mount-own.log"), g.mnt())
	if err != nil {
		return err
	}
	// It mounts before it has found its bricks, and answers with errors then.
	return await(ctx, "mount of "+g.mnt(), 30*time.Second, func() bool {
		return isMount(g.mnt()) && os.MkdirAll(g.dir(), 0o755) == nil
	})
}

func (g *gluster) client() int { return pid(g.mount) }

func (g *gluster) stop() {
	unmount(g.mnt(), g.mount)
	if g.server == nil {
		return
	}
	// It started the bricks, and only it can end them.
	if err := g.cli("volume", "stop", glusterVolume, "force"); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	devup.End(g.server, syscall.SIGTERM)
}
