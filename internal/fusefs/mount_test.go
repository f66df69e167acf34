package fusefs

import (
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

func TestMountsAreFoundByTheirPointEscapedOrNot(t *testing.T) {
	const info = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /mnt/with\040space rw,nosuid shared:3 master:2 - fuse.ashlar c:v rw,user_id=0
41 22 0:51 / /mnt rw - tmpfs tmpfs rw
42 41 0:52 / /mnt rw - fuse.ashlar c:w rw
a line that is none
`
	for dir, want := range map[string]string{"/": "8:1", "/mnt/with space": "0:50", "/mnt": "0:52", "/none": ""} {
		m, err := scanMounts(strings.NewReader(info), dir)
		if err != nil || (m == nil) != (want == "") || m != nil && m.device != want {
			t.Errorf("%s: %+v, %v", dir, m, err)
		}
	}
}

func FuzzMountInfo(f *testing.F) {
	f.Add("40 22 0:50 / /a\\040b rw - fuse.ashlar c:v rw\n", "/a b")
	f.Fuzz(func(t *testing.T, info, dir string) {
		m, err := scanMounts(strings.NewReader(info), dir)
		if err == nil && m != nil && !strings.Contains(info, m.device) {
			t.Fatal("a device that is not there")
		}
	})
}

func TestTheRootAndInodeOneChangePlaces(t *testing.T) {
	f := newTestFilesystem()
	root := f.fs.Root()
	for ino, node := range map[uint64]uint64{uint64(root): 1, 1: uint64(root), 2: 2, 1 << 60: 1 << 60} {
		if got := f.node(f.inode(node)); got != node {
			t.Errorf("node %d comes back as %d", node, got)
		}
		if got := f.node(f.inode(node)); f.inode(node) != f.inode(got) || uint64(f.inode(node)) != ino {
			t.Errorf("node %d is inode %d, want %d", node, f.inode(node), ino)
		}
	}
}

func newTestFilesystem() *filesystem {
	return &filesystem{fs: file.New(file.Options{Volume: filetest.New().Volume()})}
}
