package meta_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/cockroachdb/datadriven"
)

// world is a state with one session and the leader's side of things.
type world struct {
	mem     metatest.Mem
	env     meta.Env
	opens   metatest.Opens
	cut     bool // every cut is done
	session ashlar.SessionID
	seq     uint64
	lowest  uint64
	cred    ashlar.Cred
	root    ashlar.Inode
	note    string
	batch   []metatest.Write // of the last operation
}

func newWorld(t testing.TB) *world {
	w := &world{opens: metatest.Opens{}}
	w.env = meta.Env{
		Now: 1000, Opens: w.opens, Placer: metatest.Groups(8), Space: metatest.Free{Total: 1 << 40, Left: 1 << 39},
		CutDone: func(ashlar.LayerID, ashlar.Generation) bool { return w.cut },
	}
	meta.InitCluster(&w.mem, &meta.Cluster{ID: ashlar.ClusterID{1}, History: 1})
	key.StoreNumber(&w.mem, key.PoolName("default"), uint32(1))
	s, _, err := session.Make(&w.mem, w.env.Now, &session.Request{Name: "test", Incarnation: 7, Nonce: 9})
	if err != nil {
		t.Fatal(err)
	}
	w.session = s.ID
	w.mem.Commit()
	r, err := w.do(&wire.SetVolume{Name: "main"})
	if err != nil {
		t.Fatal(err)
	}
	w.root = r.(*wire.VolumeReply).Root
	return w
}

// do evaluates an operation under the next sequence and commits its batch.
func (w *world) do(body wire.Message) (wire.Message, error) {
	o := &wire.Operation{Session: w.session, Cred: w.cred, Body: body}
	if wire.Changes(body) {
		w.seq++
		o.Seq, o.Lowest = w.seq, w.seq
	}
	return w.evaluate(o)
}

func (w *world) evaluate(o *wire.Operation) (wire.Message, error) {
	w.env.Now += 1000
	reply, note, err := meta.Evaluate(&w.mem, &w.env, o)
	w.note, w.batch = note, w.mem.Batch()
	if err != nil {
		for _, b := range w.batch {
			if k := key.Kind(b.Key[2]); k != key.KindResult && k != key.KindSession {
				panic(fmt.Sprintf("a refused operation wrote %s: %v", key.String(b.Key), err))
			}
		}
	}
	w.mem.Commit()
	return reply, err
}

// at finds the inode of a path, or of "@5".
func (w *world) at(path string) ashlar.Inode {
	if n, ok := strings.CutPrefix(path, "@"); ok {
		id, _ := strconv.ParseUint(n, 10, 64)
		return ashlar.InPartition[ashlar.Inode](key.VolumePartition, id)
	}
	ino := w.root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		var d namespace.Dentry
		if ok, err := key.Load(&w.mem, key.Dentry(ino, name), &d); !ok || err != nil {
			return ashlar.InPartition[ashlar.Inode](key.VolumePartition, 99999)
		}
		ino = d.Inode
	}
	return ino
}

// split finds the directory of a path and returns its last name. {256} in a
// path stands for so many letters.
func (w *world) split(path string) (ashlar.Inode, string) {
	if i := strings.IndexByte(path, '{'); i >= 0 {
		j := strings.IndexByte(path, '}')
		n, _ := strconv.Atoi(path[i+1 : j])
		path = path[:i] + strings.Repeat("x", n) + path[j+1:]
	}
	i := strings.LastIndexByte(path, '/')
	return w.at(path[:i]), path[i+1:]
}

func short[T ~uint64](id T) uint64 { return uint64(id) & (1<<52 - 1) }

var typeNames = map[string]ashlar.FileType{
	"fifo": ashlar.TypeFIFO, "char": ashlar.TypeChar, "dir": ashlar.TypeDir, "block": ashlar.TypeBlock,
	"file": ashlar.TypeFile, "symlink": ashlar.TypeSymlink, "socket": ashlar.TypeSocket,
}

func typeName(t ashlar.FileType) string {
	for n, v := range typeNames {
		if v == t {
			return n
		}
	}
	return "?"
}

func showEntry(e *wire.Entry) string {
	a := &e.Attr
	s := fmt.Sprintf("%s %d mode=%o nlink=%d owner=%d:%d size=%d", typeName(a.Type), short(a.Inode), a.Mode, a.Nlink, a.UID, a.GID, a.Size)
	if e.Created {
		s = "created " + s
	}
	if a.Rdev != 0 {
		s += fmt.Sprintf(" rdev=%d", a.Rdev)
	}
	if a.Type == ashlar.TypeFile {
		s += fmt.Sprintf(" layer=%d gen=%d %s", short(e.Object.Layer), e.Object.Gen, showLayout(&e.Object.Layout))
	}
	return s
}

func showLayout(l *ashlar.Layout) string {
	s := fmt.Sprintf("limit=%d", l.Limit)
	for _, seg := range l.Segments {
		s += fmt.Sprintf(" %d:%v", seg.First, seg.Groups)
	}
	return s
}

func show(reply wire.Message) string {
	switch r := reply.(type) {
	case *wire.Entry:
		return showEntry(r)
	case *wire.ReserveReply:
		return fmt.Sprintf("at %d: %s", r.Off, showEntry(&r.Entry))
	case *wire.ReadlinkReply:
		return r.Target
	case *wire.ReaddirReply:
		var b strings.Builder
		for _, e := range r.Entries {
			fmt.Fprintf(&b, "%d %s %s %d", e.Cookie, e.Name, typeName(e.Type), short(e.Inode))
			if r.Plus {
				fmt.Fprintf(&b, " mode=%o", e.Attr.Mode)
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "eof=%v parent=%d", r.EOF, short(r.Parent))
		return b.String()
	case *wire.XattrReply:
		return fmt.Sprintf("%q", r.Value)
	case *wire.ListXattrReply:
		return strings.Join(r.Names, " ")
	case *wire.StatFSReply:
		return fmt.Sprintf("total=%d free=%d used=%d inodes=%d", r.Total, r.Free, r.Used, r.Inodes)
	case *wire.VolumeReply:
		return fmt.Sprintf("volume %d %s root=%d pool=%s %+v", r.ID, r.Name, short(r.Root), r.Pool, r.Policy)
	case *wire.Empty:
		return "ok"
	}
	return fmt.Sprintf("%T %+v", reply, reply)
}

func showError(err error) string {
	if n := meta.AsNeedCut(err); n != nil {
		var b strings.Builder
		fmt.Fprintf(&b, "need cut of layer %d to %d at gen %d pending=%v", short(n.Layer), n.Size, n.Gen, n.Pending)
		for _, c := range n.Cuts {
			fmt.Fprintf(&b, "\n  group %d: from %d, cut %v", c.Group, c.From, c.Cuts)
		}
		return b.String()
	}
	return "error: " + err.Error()
}

func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			w := newWorld(t)
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.run(t, d) })
			if p := checkInvariants(&w.mem); len(p) > 0 {
				t.Error(strings.Join(p, "\n"))
			}
		})
	}
}

func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	a := args{t, d}
	if out, ok := w.control(a); ok {
		return out
	}
	body := w.body(a)
	if body == nil {
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	reply, err := w.do(body)
	out := ""
	if err != nil {
		out = showError(err)
	} else {
		out = show(reply)
	}
	if a.flag("note") {
		out += "\nnote: " + w.note
		for _, b := range w.batch {
			if out += "\n  set "; b.Value == nil {
				out = strings.TrimSuffix(out, "set ") + "delete "
			}
			out += key.String(b.Key)
		}
	}
	return out + "\n"
}

// args reads the arguments of a command.
type args struct {
	t *testing.T
	d *datadriven.TestData
}

func (a args) flag(name string) bool { return a.d.HasArg(name) }

func (a args) str(name string) string {
	for _, c := range a.d.CmdArgs {
		if c.Key == name && len(c.Vals) == 1 {
			return c.Vals[0]
		}
	}
	return ""
}

func (a args) num(name string) uint64 {
	s := a.str(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		a.d.Fatalf(a.t, "%s: %v", name, err)
	}
	return n
}

func (a args) oct(name string) uint16 {
	n, _ := strconv.ParseUint(a.str(name), 8, 16)
	return uint16(n)
}
