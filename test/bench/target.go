package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// self names the column that the others are compared with.
const self = "ashlar"

// target is a mounted file system to measure.
type target interface {
	name() string
	start(ctx context.Context) error
	// dir is where the work is done.
	dir() string
	// remount empties the client's caches.
	remount(ctx context.Context) error
	stop()
}

// await polls a condition until it holds or the time is over.
func await(ctx context.Context, what string, limit time.Duration, ok func() bool) error {
	deadline := time.NewTimer(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("%s: not after %v", what, limit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func isMount(dir string) bool {
	var a, b syscall.Stat_t
	return syscall.Stat(dir, &a) == nil && syscall.Stat(filepath.Dir(dir), &b) == nil && a.Dev != b.Dev
}

// unmount takes a mount away and waits for its daemon.
func unmount(dir string, daemon *exec.Cmd) {
	if isMount(dir) {
		if syscall.Unmount(dir, 0) != nil {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}
	end(daemon, syscall.SIGTERM)
}

// end signals a process that this program started and waits for it.
func end(c *exec.Cmd, sig syscall.Signal) {
	if c == nil || c.Process == nil {
		return
	}
	_ = c.Process.Signal(sig)
	gone := make(chan struct{})
	go func() { _ = c.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		_ = c.Process.Kill()
		<-gone
	}
}

// daemon starts a process in the foreground with its output in a file.
func daemon(logFile string, argv ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c, c.Start()
}

// local is a plain directory.
type local struct{ root string }

func (l *local) name() string                  { return "local" }
func (l *local) dir() string                   { return l.root }
func (l *local) start(context.Context) error   { return os.MkdirAll(l.root, 0o755) }
func (l *local) remount(context.Context) error { return nil }
func (l *local) stop()                         {}

// ashlarTarget is a cluster of three nodes on this machine.
type ashlarTarget struct {
	bin   string
	root  string
	up    *exec.Cmd
	mount *exec.Cmd
}

func (a *ashlarTarget) name() string { return self }
func (a *ashlarTarget) mnt() string  { return filepath.Join(a.root, "mnt") }
func (a *ashlarTarget) dir() string  { return filepath.Join(a.mnt(), "w") }

func (a *ashlarTarget) start(ctx context.Context) error {
	if err := os.MkdirAll(a.mnt(), 0o755); err != nil {
		return err
	}
	c := exec.Command(a.bin, "dev", "up", "--dir", filepath.Join(a.root, "cluster"), "--nodes", "3", "--volume", "bench")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(a.root, "dev.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stderr = log
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	a.up = c
	ready := make(chan error, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready") {
				ready <- nil
				break
			}
		}
		for s.Scan() {
		}
		select {
		case ready <- errors.New("the cluster ended before it was ready; see " + log.Name()):
		default:
		}
	}()
	select {
	case err := <-ready:
		if err != nil {
			return err
		}
	case <-time.After(60 * time.Second):
		return errors.New("the cluster was not ready within a minute; see " + log.Name())
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.remount(ctx)
}

func (a *ashlarTarget) remount(ctx context.Context) error {
	unmount(a.mnt(), a.mount)
	var err error
	a.mount, err = daemon(filepath.Join(a.root, "mount.log"), a.bin, "mount",
		filepath.Join(a.root, "cluster", "client.toml")+":bench", a.mnt())
	if err != nil {
		return err
	}
	if err := await(ctx, "mount of "+a.mnt(), 30*time.Second, func() bool { return isMount(a.mnt()) }); err != nil {
		return err
	}
	return os.MkdirAll(a.dir(), 0o755)
}

func (a *ashlarTarget) stop() {
	unmount(a.mnt(), a.mount)
	end(a.up, syscall.SIGINT)
}

// moosefs is MooseFS 3 with three chunkservers and two copies, from the
// distribution's packages.
type moosefs struct {
	root    string
	daemons []*exec.Cmd
	mount   *exec.Cmd
}

const moosePort = 19519

func moosefsInstalled() bool {
	for _, p := range []string{"mfsmaster", "mfschunkserver", "mfsmount", "mfscli", "mfssetgoal", "mfssettrashtime"} {
		if _, err := exec.LookPath(p); err != nil {
			return false
		}
	}
	return true
}

func (m *moosefs) name() string { return "moosefs" }
func (m *moosefs) mnt() string  { return filepath.Join(m.root, "mnt") }
func (m *moosefs) dir() string  { return filepath.Join(m.mnt(), "w") }

// start works round MooseFS's refusal of loopback addresses: chunkservers
// dial 0.0.0.0, which Linux routes to loopback, and the master tells clients
// the same. Everything listens on 127.0.0.1 alone.
func (m *moosefs) start(ctx context.Context) error {
	master := filepath.Join(m.root, "master")
	for _, d := range []string{master, m.mnt()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	empty, err := os.ReadFile("/var/lib/mfs/metadata.mfs.empty")
	if err != nil {
		return err
	}
	write := func(name, text string) string {
		p := filepath.Join(m.root, name)
		if e := os.WriteFile(p, []byte(text), 0o644); e != nil {
			err = e
		}
		return p
	}
	write("master/metadata.mfs", string(empty))
	exports := write("mfsexports.cfg", "127.0.0.0/8 / rw,alldirs,admin,maproot=0:0\n127.0.0.0/8 . rw\n")
	topology := write("mfstopology.cfg", "")
	cfg := write("mfsmaster.cfg", fmt.Sprintf(`WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = %s
EXPORTS_FILENAME = %s
TOPOLOGY_FILENAME = %s
MATOML_LISTEN_HOST = 127.0.0.1
MATOML_LISTEN_PORT = %d
MATOCS_LISTEN_HOST = 127.0.0.1
MATOCS_LISTEN_PORT = %d
MATOCL_LISTEN_HOST = 127.0.0.1
MATOCL_LISTEN_PORT = %d
REMAP_BITS = 32
REMAP_SOURCE_IP_CLASS = 127.0.0.1
REMAP_DESTINATION_IP_CLASS = 0.0.0.0
`, master, exports, topology, moosePort, moosePort+1, moosePort+2))
	if err != nil {
		return err
	}
	if err := m.daemon("mfsmaster", "mfsmaster", "-f", "-c", cfg, "start"); err != nil {
		return err
	}
	if err := await(ctx, "MooseFS master", 20*time.Second, func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", moosePort+2))
		if err == nil {
			c.Close()
		}
		return err == nil
	}); err != nil {
		return err
	}
	for i := 1; i <= 3; i++ {
		cs := fmt.Sprintf("cs%d", i)
		for _, d := range []string{"data", "hdd"} {
			if err := os.MkdirAll(filepath.Join(m.root, cs, d), 0o755); err != nil {
				return err
			}
		}
		hdd := write(cs+"/mfshdd.cfg", filepath.Join(m.root, cs, "hdd")+"\n")
		cfg := write(cs+"/mfschunkserver.cfg", fmt.Sprintf(`WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = %s
HDD_CONF_FILENAME = %s
HDD_LEAVE_SPACE_DEFAULT = 1GiB
MASTER_HOST = 0.0.0.0
MASTER_PORT = %d
MASTER_RECONNECTION_DELAY = 1
CSSERV_LISTEN_HOST = 127.0.0.1
CSSERV_LISTEN_PORT = %d
`, filepath.Join(m.root, cs, "data"), hdd, moosePort+1, moosePort+10+i))
		if err != nil {
			return err
		}
		if err := m.daemon(cs, "mfschunkserver", "-f", "-c", cfg, "start"); err != nil {
			return err
		}
	}
	if err := await(ctx, "MooseFS chunkservers with space", 40*time.Second, m.spaceReported); err != nil {
		return err
	}
	if err := m.remount(ctx); err != nil {
		return err
	}
	for _, c := range [][]string{{"mfssetgoal", "-r", "2", m.mnt()}, {"mfssettrashtime", "-r", "0", m.mnt()}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %v: %s", c[0], err, out)
		}
	}
	return nil
}

// spaceReported tells whether three chunkservers report room: before that,
// files get fewer copies than they should.
func (m *moosefs) spaceReported() bool {
	out, err := exec.Command("mfscli", "-H", "127.0.0.1", "-P", fmt.Sprint(moosePort+2), "-SCS", "-s", "|").Output()
	if err != nil {
		return false
	}
	n := 0
	for _, line := range strings.Split(string(out), "\n") {
		f := strings.Split(line, "|")
		if len(f) > 9 && f[9] != "" && f[9] != "0" && f[9][0] >= '1' && f[9][0] <= '9' {
			n++
		}
	}
	return n >= 3
}

func (m *moosefs) daemon(name string, argv ...string) error {
	c, err := daemon(filepath.Join(m.root, name+".log"), argv...)
	if err == nil {
		m.daemons = append(m.daemons, c)
	}
	return err
}

func (m *moosefs) remount(ctx context.Context) error {
	unmount(m.mnt(), m.mount)
	var err error
	m.mount, err = daemon(filepath.Join(m.root, "mount.log"), "mfsmount", "-f", m.mnt(),
		"-o", fmt.Sprintf("mfsmaster=127.0.0.1,mfsport=%d", moosePort+2))
	if err != nil {
		return err
	}
	if err := await(ctx, "mount of "+m.mnt(), 20*time.Second, func() bool { return isMount(m.mnt()) }); err != nil {
		return err
	}
	return os.MkdirAll(m.dir(), 0o755)
}

func (m *moosefs) stop() {
	unmount(m.mnt(), m.mount)
	for i := len(m.daemons) - 1; i >= 0; i-- {
		end(m.daemons[i], syscall.SIGTERM)
	}
}
