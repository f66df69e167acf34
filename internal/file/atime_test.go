package file_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// atimeOf returns the access time that the leader has.
func atimeOf(t *testing.T, c *filetest.Cluster, ino ashlar.Inode) int64 {
	t.Helper()
	fs, _ := newFS(c) // without a lease
	a, err := fs.GetAttr(ctx, root, ino)
	ok(t, err)
	ok(t, fs.Close(ctx))
	return a.Atime
}

func TestReadsAreToldLaterAndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := filetest.New()
		fs, _ := newFS(c)
		other, _ := newFS(c)
		var inos []ashlar.Inode
		for n := range wire.AccessedMax + 10 {
			h := create(t, fs, fmt.Sprint(n))
			inos = append(inos, h.Inode())
			ok(t, h.Close(ctx))
		}
		time.Sleep(time.Minute) // in the bubble: the clock goes on
		read := map[ashlar.Inode]int64{}
		for _, ino := range inos {
			a, err := fs.GetAttr(ctx, root, ino)
			ok(t, err)
			fs.Accessed(&a)
			if fs.Shown(&a); a.Atime-a.Ctime < int64(59*time.Second) {
				t.Fatalf("made at %d, shown as read at %d", a.Ctime, a.Atime)
			}
			read[ino] = a.Atime
		}
		if n := c.Count("Accessed"); n != 0 || atimeOf(t, c, inos[0]) == read[inos[0]] {
			t.Fatalf("told at once, %d times", n)
		}
		time.Sleep(file.AccessDelay)
		synctest.Wait()
		if n := c.Count("Accessed"); n != 2 {
			t.Fatalf("%d messages, want 2", n)
		}
		for _, ino := range inos {
			if at := atimeOf(t, c, ino); at != read[ino] {
				t.Fatalf("the leader has %d, read at %d", at, read[ino])
			}
		}
		ok(t, fs.Close(ctx))
		ok(t, other.Close(ctx))
	})
}

func TestAReadTakesNoAccessTimeBackThatWasSetSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := filetest.New()
		fs, _ := newFS(c)
		other, _ := newFS(c)
		h := create(t, fs, "f")
		ino := h.Inode()
		ok(t, h.Close(ctx))
		time.Sleep(time.Minute)
		a, err := fs.GetAttr(ctx, root, ino)
		ok(t, err)
		fs.Accessed(&a)
		_, err = other.SetAttr(ctx, root, &wire.SetAttr{Inode: ino, Valid: wire.SetAtime, Atime: 5})
		ok(t, err)
		time.Sleep(2 * file.AccessDelay)
		synctest.Wait()
		if at := atimeOf(t, c, ino); at != 5 {
			t.Fatalf("set to 5, is %d", at)
		}
		a, err = fs.GetAttr(ctx, root, ino)
		ok(t, err)
		if fs.Shown(&a); a.Atime != 5 {
			t.Fatalf("set to 5, shown as %d", a.Atime)
		}
		ok(t, fs.Close(ctx))
		ok(t, other.Close(ctx))
	})
}

func TestWhatWasReadLastIsToldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := filetest.New()
		fs, _ := newFS(c)
		h := create(t, fs, "f")
		ok(t, h.Close(ctx))
		time.Sleep(time.Minute)
		a := h.Attr()
		fs.Accessed(&a)
		fs.Shown(&a)
		read := a.Atime
		ok(t, fs.Close(ctx))
		other, _ := newFS(c)
		if at := atimeOf(t, c, h.Inode()); at != read {
			t.Fatalf("the leader has %d, read at %d", at, read)
		}
		ok(t, other.Close(ctx))
	})
}
