package meta_test

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
)

// census is everything in a state that the invariants of namespace relate.
type census struct {
	inodes   map[ashlar.Inode]*namespace.Inode
	names    map[ashlar.Inode]int // found in directories
	subdirs  map[ashlar.Inode]uint32
	entries  map[ashlar.Inode]uint64
	places   map[string]ashlar.Inode // directory/cookie -> inode
	links    map[ashlar.Inode]int
	orphans  map[ashlar.Inode]bool
	usage    map[ashlar.VolumeID]namespace.Usage
	counted  map[ashlar.VolumeID]namespace.Usage
	problems []string
}

func (c *census) wrong(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// checkInvariants walks a whole state and returns what breaks N-2 to N-5.
func checkInvariants(tx key.Tx) []string {
	c := &census{
		map[ashlar.Inode]*namespace.Inode{}, map[ashlar.Inode]int{}, map[ashlar.Inode]uint32{}, map[ashlar.Inode]uint64{},
		map[string]ashlar.Inode{}, map[ashlar.Inode]int{}, map[ashlar.Inode]bool{},
		map[ashlar.VolumeID]namespace.Usage{}, map[ashlar.VolumeID]namespace.Usage{}, nil,
	}
	type pair struct{ k, v []byte }
	var all []pair
	tx.Scan(nil, []byte{0xff}, func(k, v []byte) bool {
		all = append(all, pair{append([]byte(nil), k...), v})
		return true
	})
	for _, p := range all {
		c.take(tx, p.k, p.v)
	}
	for ino, i := range c.inodes {
		c.checkInode(ino, i)
	}
	for v, u := range c.counted {
		if c.usage[v] != u {
			c.wrong("N-5: volume %d says %+v, has %+v", v, c.usage[v], u)
		}
	}
	return c.problems
}

func (c *census) take(tx key.Tx, k, v []byte) {
	must := func(err error) {
		if err != nil {
			c.wrong("%s: %v", key.String(k), err)
		}
	}
	switch key.Kind(k[2]) {
	case key.KindInode:
		i := new(namespace.Inode)
		must(key.Decode(v, i))
		i.Attr.Inode = ashlar.Inode(key.Tail64(k, 0))
		c.inodes[i.Attr.Inode] = i
		u := c.counted[i.Volume]
		u.Inodes++
		if i.Attr.Type == ashlar.TypeFile {
			u.Bytes += i.Attr.Size
		}
		c.counted[i.Volume] = u
	case key.KindCookie:
		var l namespace.Listed
		must(key.Decode(v, &l))
		dir, cookie := ashlar.Inode(key.Tail64(k, 0)), key.Tail64(k, 1)
		var d namespace.Dentry
		ok, err := key.Load(tx, key.Dentry(dir, l.Name), &d)
		if must(err); !ok || d != (namespace.Dentry{Inode: l.Inode, Type: l.Type, Cookie: cookie}) {
			c.wrong("N-2: %s is %+v, its dentry %+v", key.String(k), l, d)
		}
		c.names[l.Inode]++
		c.entries[dir]++
		c.places[fmt.Sprint(uint64(dir), "/", cookie)] = l.Inode
		if l.Type == ashlar.TypeDir {
			c.subdirs[dir]++
		}
	case key.KindDentry:
		var d namespace.Dentry
		must(key.Decode(v, &d))
		if _, ok := tx.Get(key.Cookie(ashlar.Inode(key.Tail64(k, 0)), d.Cookie)); !ok {
			c.wrong("N-2: %s has no cookie", key.String(k))
		}
	case key.KindLink:
		c.links[ashlar.Inode(key.Tail64(k, 0))]++
		if at := fmt.Sprint(key.Tail64(k, 1), "/", key.Tail64(k, 2)); c.places[at] != ashlar.Inode(key.Tail64(k, 0)) {
			c.wrong("N-3: %s leads nowhere", key.String(k))
		}
	case key.KindOrphan:
		c.orphans[ashlar.Inode(key.Tail64(k, 0))] = true
	case key.KindUsage:
		var u namespace.Usage
		must(key.Decode(v, &u))
		c.usage[ashlar.VolumeID(key.Tail32(k, 0))] = u
	}
}

func (c *census) checkInode(ino ashlar.Inode, i *namespace.Inode) {
	root := i.Parent == ino
	switch {
	case i.Attr.Nlink == 0 && !c.orphans[ino]:
		c.wrong("N-3: inode %d has no names and is no orphan", short(ino))
	case i.Attr.Nlink == 0 && c.names[ino] != 0:
		c.wrong("N-3: orphan %d has names", short(ino))
	case i.Attr.Nlink == 0 || root:
	case i.Attr.Type == ashlar.TypeDir && (c.names[ino] != 1 || i.Attr.Nlink != 2+c.subdirs[ino]):
		c.wrong("N-3: directory %d: nlink %d, %d names, %d subdirectories", short(ino), i.Attr.Nlink, c.names[ino], c.subdirs[ino])
	case i.Attr.Type != ashlar.TypeDir && (int(i.Attr.Nlink) != c.names[ino] || c.links[ino] != c.names[ino]-1):
		c.wrong("N-3: inode %d: nlink %d, %d names, %d link keys", short(ino), i.Attr.Nlink, c.names[ino], c.links[ino])
	}
	if i.Attr.Nlink > 0 && !root && c.places[fmt.Sprint(uint64(i.Parent), "/", i.Cookie)] != ino {
		c.wrong("N-3: the home of %d is not its", short(ino))
	}
	if i.Entries != c.entries[ino] {
		c.wrong("directory %d counts %d entries, has %d", short(ino), i.Entries, c.entries[ino])
	}
	for steps, d := 0, i; i.Attr.Nlink > 0 && d.Parent != d.Attr.Inode; steps++ {
		if d = c.inodes[d.Parent]; d == nil || d.Attr.Type != ashlar.TypeDir || steps > 1000 {
			c.wrong("N-4: %d does not lead to the root", short(ino))
			return
		}
	}
}
