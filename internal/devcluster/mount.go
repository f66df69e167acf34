package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
)

// fuseMagic is what statfs(2) says of a FUSE mount.
const fuseMagic = 0x65735546

// startMount mounts the volume in a process of its own.
func (c *Cluster) startMount(s *State, ended func(error)) error {
	if err := clearStale(s.Mount); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Mount, 0o755); err != nil {
		return err
	}
	if mounted(s.Mount) {
		return ashlar.E("dev", ashlar.Busy, s.Mount, fmt.Errorf("something is mounted there; unmount it with `umount %s`", s.Mount))
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return ashlar.E("dev", ashlar.Unsupported, s.Mount, fmt.Errorf("no FUSE here (%w); leave --mount out and use `ashlar fs`", err))
	}
	_, err := start(c.Exe, []string{"mount", "--foreground", c.ClientFile() + ":" + s.Volume, s.Mount},
		filepath.Join(c.Dir, "mount.log"), filepath.Join(c.Dir, "mount.pid"), ended)
	return err
}

// mounted tells whether path is a FUSE mount that answers statfs. It asks in
// a process of its own, because a mount whose cluster is away blocks whoever
// asks.
func mounted(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), pollEvery*50)
	defer cancel()
	out, err := exec.CommandContext(ctx, "stat", "-f", "-c", "%t", path).Output()
	return err == nil && string(out) == fmt.Sprintf("%x\n", fuseMagic)
}

// clearStale takes away a mount whose process is gone.
func clearStale(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != unix.ENOTCONN {
		return nil
	}
	if unix.Unmount(path, unix.MNT_DETACH) == nil {
		return nil
	}
	out, err := exec.Command("fusermount3", "-u", "-z", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("a dead mount is at %s and cannot be taken away: %s", path, out)
	}
	return nil
}

// stopMount unmounts and waits for the mount process.
func (c *Cluster) stopMount(ctx context.Context, s *State) error {
	file := filepath.Join(c.Dir, "mount.pid")
	p, err := readPID(file)
	if err != nil {
		return err
	}
	if p.PID != 0 {
		clean, err := p.stop(ctx)
		if err != nil {
			return err
		}
		if !clean {
			c.Logf("the mount did not stop in time and was killed; is something using %s?", s.Mount)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if s.Mount == "" {
		return nil
	}
	return clearStale(s.Mount)
}
