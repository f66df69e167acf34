package posix

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mounted is where the Ashlar volume is, and mounted2 where it is once more;
// missing says why not.
var mounted, mounted2, missing string

// cluster is what was started for it.
var (
	cluster  *exec.Cmd
	mounters []*exec.Cmd
)

func TestMain(m *testing.M) {
	runtime.LockOSThread() // what is started ends with this thread
	syscall.Umask(0o022)
	dir, err := start()
	if err != nil {
		if os.Getenv("ASHLAR_E2E") == "required" {
			fmt.Fprintln(os.Stderr, err)
			stop(dir)
			os.Exit(1)
		}
		missing = err.Error()
	}
	code := m.Run()
	if err := stop(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// start brings up one node and mounts its volume twice, with special files
// allowed.
func start() (dir string, err error) {
	if mounted = os.Getenv("ASHLAR_POSIX_DIR"); mounted != "" {
		mounted2 = os.Getenv("ASHLAR_POSIX_DIR2")
		return "", nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("needs root, to be anybody")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "ashlar-posix-"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	bin := filepath.Join(dir, "ashlar")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/ashlarfs/ashlar/cmd/ashlar").CombinedOutput(); err != nil {
		return dir, fmt.Errorf("building ashlar: %v\n%s", err, out)
	}
	run := filepath.Join(dir, "run")
	cluster = exec.Command(bin, "dev", "up", "--dir", run, "--nodes", "1", "--replicas", "1")
	if err := ready(cluster, "ready"); err != nil {
		return dir, err
	}
	if mounted, err = mount(dir, "mnt"); err == nil {
		mounted2, err = mount(dir, "mnt2")
	}
	return dir, err
}

// mount mounts the volume on a new directory.
func mount(dir, name string) (string, error) {
	mnt := filepath.Join(dir, name)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return "", err
	}
	log, err := os.Create(mnt + ".log")
	if err != nil {
		return "", err
	}
	c := exec.Command(filepath.Join(dir, "ashlar"), "mount", "--foreground", "-o", "dev,suid", filepath.Join(dir, "run", "client.toml")+":main", mnt)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	c.Stderr = log
	if err := c.Start(); err != nil {
		return "", err
	}
	mounters = append(mounters, c)
	var before, now syscall.Stat_t
	if err := syscall.Stat(dir, &before); err != nil {
		return "", err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		if syscall.Stat(mnt, &now) == nil && now.Dev != before.Dev {
			return mnt, nil
		}
	}
	return "", fmt.Errorf("%s is not mounted after a minute; see %s", mnt, log.Name())
}

// ready starts a command and waits for a line that begins with a word.
func ready(c *exec.Cmd, word string) error {
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.Start(); err != nil {
		return err
	}
	s := bufio.NewScanner(out)
	for s.Scan() {
		if strings.HasPrefix(s.Text(), word) {
			go func() {
				for s.Scan() {
				}
			}()
			return nil
		}
	}
	return fmt.Errorf("%s ended without saying %q", strings.Join(c.Args, " "), word)
}

// stop unmounts and stops what start started.
func stop(dir string) (err error) {
	for _, c := range append(mounters, cluster) {
		if c == nil || c.Process == nil {
			continue
		}
		c.Process.Signal(os.Interrupt)
		end := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
		if e := c.Wait(); e != nil && err == nil {
			err = fmt.Errorf("%s: %w", c.Args[1], e)
		}
		end.Stop()
	}
	if dir != "" && err == nil {
		err = os.RemoveAll(dir)
	}
	return err
}

func mountDir(t testing.TB) string {
	t.Helper()
	if mounted == "" {
		t.Skip(missing)
	}
	return mounted
}

// refDir is where the local file system is: it should be ext4.
func refDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("ASHLAR_POSIX_REF"); dir != "" {
		return dir
	}
	return os.TempDir()
}
