package fusefs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

// A directory is listed in batches, which outlast the lease under which they were
// asked for: the kernel is told of nothing in one that changed since, by another
// mount or this one.
func TestAListingTellsNothingThatHasChangedMeanwhile(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprint("elsewhere=", elsewhere), func(t *testing.T) {
			c := filetest.New()
			a := mount(t, c)
			by := a
			if elsewhere {
				by = mount(t, c)
			}
			const n = 600
			name := func(k int) string { return fmt.Sprintf("file-with-a-long-name-%04d", k) }
			for k := range n {
				ok(t, os.WriteFile(filepath.Join(a, name(k)), []byte("old"), 0o644))
			}
			d, err := os.Open(a)
			ok(t, err)
			defer d.Close()
			seen, err := d.Readdirnames(1) // the kernel has asked for the first few by now
			ok(t, err)
			later := [4]string{name(n - 1), name(n - 2), name(n - 3), name(n - 4)}
			ok(t, os.Remove(filepath.Join(by, later[0])))
			ok(t, os.Rename(filepath.Join(by, later[1]), filepath.Join(by, "moved")))
			ok(t, os.Chmod(filepath.Join(by, later[2]), 0o600))
			ok(t, os.WriteFile(filepath.Join(by, later[3]), []byte("newer"), 0o644))
			for len(seen) < n {
				// A lookup gives the lease back that was taken, and has the kernel ask
				// for attributes with the next entries.
				_, err := os.Stat(filepath.Join(a, seen[len(seen)-1]))
				ok(t, err)
				more, err := d.Readdirnames(20)
				if len(more) == 0 || err != nil {
					break
				}
				seen = append(seen, more...)
			}
			for _, gone := range later[:2] {
				if _, err := os.Stat(filepath.Join(a, gone)); !errors.Is(err, syscall.ENOENT) {
					t.Errorf("%s: %v", gone, err)
				}
			}
			if st, err := os.Stat(filepath.Join(a, later[2])); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("mode of %s: %v, %v", later[2], st, err)
			}
			if st, err := os.Stat(filepath.Join(a, later[3])); err != nil || st.Size() != 5 {
				t.Errorf("size of %s: %v, %v", later[3], st, err)
			}
		})
	}
}
