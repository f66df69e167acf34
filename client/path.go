package client

import (
	"context"
	"io/fs"
	"strings"

	"github.com/ashlarfs/ashlar"
)

// symlinksMax is how many symbolic links one path may lead through.
const symlinksMax = 40

// Clean turns any slash-separated path, rooted or not, into the form that the
// methods of Volume take.
func Clean(p string) string {
	var out []string
	for _, s := range strings.Split(p, "/") {
		switch s {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return "."
	}
	return strings.Join(out, "/")
}

// place is where a path leads: an inode, or a name in a directory that is not
// there.
type place struct {
	parent ashlar.Inode
	base   string // "" for the root
	attr   ashlar.Attr
	exists bool
}

// split takes a valid name apart.
func split(name string) ([]string, error) {
	switch {
	case !fs.ValidPath(name) || strings.ContainsRune(name, 0):
		return nil, refuse(ashlar.Invalid)
	case len(name) > ashlar.PathMax:
		return nil, refuse(ashlar.NameTooLong)
	case name == ".":
		return nil, nil
	}
	return strings.Split(name, "/"), nil
}

// resolve walks a path from the volume's root. A symbolic link at its end is
// followed with follow.
func (v *Volume) resolve(ctx context.Context, name string, follow bool) (place, error) {
	left, err := split(name)
	if err != nil {
		return place{}, err
	}
	at := []ashlar.Inode{v.root} // the directories that led here
	for links := 0; len(left) > 0; {
		part := left[0]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		dir := at[len(at)-1]
		a, err := v.fs.Lookup(ctx, v.cred, dir, part)
		missing := ashlar.KindOf(err) == ashlar.NotExist && len(left) == 0
		if err != nil && !missing {
			return place{}, err
		}
		if err == nil && a.Type == ashlar.TypeSymlink && (len(left) > 0 || follow) {
			if links++; links > symlinksMax {
				return place{}, refuse(ashlar.TooManySymlinks)
			}
			target, err := v.fs.Readlink(ctx, v.cred, a.Inode)
			if err != nil {
				return place{}, err
			}
			if strings.HasPrefix(target, "/") { // rooted in the volume
				at = at[:1]
			}
			left = append(strings.Split(target, "/"), left...)
			continue
		}
		if len(left) == 0 {
			return place{dir, part, a, err == nil}, nil
		}
		if a.Type != ashlar.TypeDir {
			return place{}, refuse(ashlar.NotDir)
		}
		at = append(at, a.Inode)
	}
	a, err := v.fs.GetAttr(ctx, v.cred, at[len(at)-1])
	return place{attr: a, exists: true}, err
}

// find resolves a path to something that is there.
func (v *Volume) find(ctx context.Context, name string, follow bool) (ashlar.Attr, error) {
	p, err := v.resolve(ctx, name, follow)
	if err == nil && !p.exists {
		err = refuse(ashlar.NotExist)
	}
	return p.attr, err
}

// parent resolves the directory of a name and returns the last part, which is
// not followed.
func (v *Volume) parent(ctx context.Context, name string) (ashlar.Inode, string, error) {
	parts, err := split(name)
	if err != nil {
		return 0, "", err
	}
	if len(parts) == 0 {
		return 0, "", refuse(ashlar.Busy) // the root itself
	}
	base := parts[len(parts)-1]
	if len(parts) == 1 {
		return v.root, base, nil
	}
	a, err := v.find(ctx, strings.Join(parts[:len(parts)-1], "/"), true)
	if err == nil && a.Type != ashlar.TypeDir {
		err = refuse(ashlar.NotDir)
	}
	return a.Inode, base, err
}
