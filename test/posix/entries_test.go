package posix

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// entries is how many names the directory has: ASHLAR_POSIX_ENTRIES for more.
func entries(t *testing.T) int {
	t.Helper()
	s := os.Getenv("ASHLAR_POSIX_ENTRIES")
	if s == "" {
		return 3000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// dirent is what getdents64(2) tells of a name: pos is where the next is.
type dirent struct {
	name string
	pos  int64
}

// getdents returns the next names of a directory, none at its end.
func getdents(t *testing.T, fd int, room int) (out []dirent) {
	t.Helper()
	b := make([]byte, room)
	n, err := unix.Getdents(fd, b)
	if err != nil {
		t.Fatal("getdents: ", err)
	}
	for b = b[:n]; len(b) > 0; {
		size := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := strings.Cut(string(b[19:size]), "\x00")
		out = append(out, dirent{name, int64(binary.NativeEndian.Uint64(b[8:]))})
		b = b[size:]
	}
	return out
}

func seekDir(t *testing.T, fd int, pos int64) {
	t.Helper()
	if _, err := unix.Seek(fd, pos, unix.SEEK_SET); err != nil {
		t.Fatal("seek: ", err)
	}
}

// makeEntries makes files named stay-N, from several goroutines.
func makeEntries(t *testing.T, dir string, n int) {
	t.Helper()
	const at = 8
	var wg sync.WaitGroup
	errs := make(chan error, at)
	for g := range at {
		wg.Go(func() {
			for i := g; i < n; i += at {
				if err := unix.Mknod(fmt.Sprintf("%s/stay-%d", dir, i), unix.S_IFREG|0o644, 0); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}

// churn makes and removes other names until stop is closed.
func churn(dir string, g int, stop <-chan struct{}) error {
	for i := 0; ; i++ {
		name := filepath.Join(dir, fmt.Sprintf("come-%d-%d", g, i%50))
		if err := unix.Mknod(name, unix.S_IFREG|0o600, 0); err != nil && err != unix.EEXIST {
			return err
		}
		if i%3 > 0 {
			if err := unix.Unlink(name); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// TestAListingMeetsEveryNameThatStaysOnce while other names come and go: from
// the start, after rewinding, and from any position told before.
func TestAListingMeetsEveryNameThatStaysOnce(t *testing.T) {
	n := entries(t)
	dir, err := os.MkdirTemp(mountDir(t), "entries-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	makeEntries(t, dir, n)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			if err := churn(dir, g, stop); err != nil {
				t.Error(err)
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var first []dirent // as met the first time
	for range 2 {
		seekDir(t, fd, 0)
		var all []dirent
		for {
			part := getdents(t, fd, 32<<10)
			if len(part) == 0 {
				break
			}
			all = append(all, part...)
		}
		first = staying(t, all, n)
	}
	// A position is where the next name is, whatever has come and gone.
	for k := range 50 {
		at := k * (n - 2) / 50
		seekDir(t, fd, first[at].pos)
		var next string
		for next == "" {
			part := getdents(t, fd, 1<<10)
			if len(part) == 0 {
				t.Fatalf("nothing after %s", first[at].name)
			}
			for _, e := range part {
				if next == "" && strings.HasPrefix(e.name, "stay-") {
					next = e.name
				}
			}
		}
		if next != first[at+1].name {
			t.Fatalf("after %s comes %s, was %s", first[at].name, next, first[at+1].name)
		}
	}
}

// staying checks that of a listing the names that stay are all there, once, and
// returns them.
func staying(t *testing.T, all []dirent, n int) (out []dirent) {
	t.Helper()
	met := map[string]bool{}
	for _, e := range all {
		if !strings.HasPrefix(e.name, "stay-") {
			continue
		}
		if met[e.name] {
			t.Fatalf("%s twice", e.name)
		}
		met[e.name] = true
		out = append(out, e)
	}
	if len(out) != n {
		t.Fatalf("%d names, made %d", len(out), n)
	}
	return out
}
