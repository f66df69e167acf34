package fusefs

import (
	"bufio"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Where tells which Ashlar volume a local path is in: the source that its
// mount names, and the path from the volume's root. ok is false for a path
// that is in no Ashlar mount. The mount itself is not touched, so that one
// that does not answer holds nobody up.
func Where(name string) (source, inside string, ok bool, err error) {
	if name, err = filepath.Abs(name); err != nil {
		return "", "", false, err
	}
	r, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", false, err
	}
	defer r.Close()
	return scanWhere(r, name)
}

// scanWhere finds the mount that a path is in, the deepest and latest one.
func scanWhere(r io.Reader, name string) (source, inside string, ok bool, err error) {
	deepest := -1
	s := bufio.NewScanner(r)
	for s.Scan() {
		left, right, found := strings.Cut(s.Text(), " - ")
		l, rt := strings.Fields(left), strings.Fields(right)
		if !found || len(l) < 5 || len(rt) < 2 {
			continue
		}
		point := unescape(l[4])
		rest, under := strings.CutPrefix(name, strings.TrimSuffix(point, "/"))
		if !under || rest != "" && rest[0] != '/' || len(point) < deepest {
			continue
		}
		deepest = len(point)
		source, inside, ok = unescape(rt[1]), path.Join("/", unescape(l[3]), rest), rt[0] == fsType
	}
	return source, inside, ok, s.Err()
}
