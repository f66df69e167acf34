package chunkserver

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// The file disks in the data directory has a line for each directory in which
// a disk of this node was once open:
//
//	# comment
//	5c1f0a9e-8d40-4f6e-9d7b-0c9d2b1f4a10 "/srv/ashlar"
//
// The UUID is the disk's, the path as in the configuration, quoted as in Go.
// An empty directory that has a line is a mount point whose disk is not
// mounted, and is not formatted: what it would become is a new disk on the
// wrong file system, while the old one counts as lost.
const (
	knownName  = "disks"
	knownMax   = 1 << 20 // bytes
	knownIntro = `# Directories in which a disk of this node was open, written by the node.
# An empty one is not mounted. To have a new disk begun there, remove its line
# and restart the node.
`
)

// known is what that file says. Its users take turns: Start, and then the life
// of the moment.
type known struct {
	fs    vfs.FS
	name  string
	disks map[string]string // UUIDs by path
}

func openKnown(fsys vfs.FS, dir string) (*known, error) {
	k := &known{fs: fsys, name: path.Join(dir, knownName), disks: map[string]string{}}
	f, err := fsys.Open(k.name)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if size > knownMax {
		err = ashlar.E("read list of disks", ashlar.Invalid, k.name, fmt.Errorf("%d bytes, want at most %d", size, knownMax))
	}
	var b []byte
	if err == nil {
		b = make([]byte, size)
		_, err = f.ReadAt(b, 0)
	}
	if err := errors.Join(eofIsNil(err), f.Close()); err != nil {
		return nil, err
	}
	k.disks, err = parseKnown(string(b))
	if err != nil {
		return nil, ashlar.E("read list of disks", ashlar.Invalid, k.name, err)
	}
	return k, nil
}

// parseKnown reads the lines of the file.
func parseKnown(text string) (map[string]string, error) {
	out := map[string]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		uuid, quoted, _ := strings.Cut(line, " ")
		p, err := strconv.Unquote(strings.TrimSpace(quoted))
		if err != nil || p == "" || uuid == "" {
			return nil, fmt.Errorf("line %d: %q: want a UUID and a path in double quotes", n, line)
		}
		out[p] = uuid
	}
	return out, nil
}

// note has the file say that a disk is open in a directory.
func (k *known) note(dir string, d *chunkstore.Disk) error {
	uuid := chunkstore.FormatUUID(d.UUID())
	if k.disks[dir] == uuid {
		return nil
	}
	k.disks[dir] = uuid
	text := knownIntro
	for _, p := range slices.Sorted(maps.Keys(k.disks)) {
		text += fmt.Sprintf("%s %q\n", k.disks[p], p)
	}
	return vfs.ReplaceFile(k.fs, k.name, []byte(text))
}

// missing is why an empty directory with a line is not formatted, nil if it
// has none.
func (k *known) missing(dir string) error {
	uuid := k.disks[dir]
	if uuid == "" {
		return nil
	}
	return ashlar.E("open disk", ashlar.NotExist, dir, fmt.Errorf(
		"nothing is mounted there: the directory is empty, and disk %s was in it; mount it, or, to begin a new disk there, remove its line from %s and restart the node",
		uuid, k.name))
}
