package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar/test/devup"
)

// moosefs is MooseFS 3 with three chunkservers and two copies, from the
// distribution's packages.
type moosefs struct {
	root    string
	daemons []*exec.Cmd
	mount   *exec.Cmd
}

const moosePort = 19519

var moosefsPrograms = []string{"mfsmaster", "mfschunkserver", "mfsmount", "mfscli", "mfssetgoal", "mfssettrashtime"}

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

func (m *moosefs) client() int { return pid(m.mount) }

func (m *moosefs) stop() {
	unmount(m.mnt(), m.mount)
	for i := len(m.daemons) - 1; i >= 0; i-- {
		devup.End(m.daemons[i], syscall.SIGTERM)
	}
}
