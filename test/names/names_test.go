package names

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
)

// masters evaluate as the leader does, one operation after the other. lie, if
// set, may answer instead.
type masters struct {
	mem   metatest.Mem
	opens metatest.Opens
	now   int64
	lie   func(body, reply wire.Message) bool
	late  *wire.Remove // to be done once more
}

// would answers a change as if it were done, and does not.
func (m *masters) would(body, reply wire.Message) bool {
	env := namespace.Env{Now: m.now, Opens: m.opens, Placer: metatest.Groups(8), Space: metatest.Free{Total: 1 << 40, Left: 1 << 39}}
	got, note, _, err := namespace.Evaluate(&m.mem, &env, &namespace.Call{Session: 1, Cred: &root, Body: body})
	m.mem.Discard()
	if err != nil || note == "" {
		return false
	}
	*reply.(*wire.Entry) = *got.(*wire.Entry)
	return true
}

func (m *masters) evaluate(cred ashlar.Cred, body, reply wire.Message) error {
	m.now++
	env := namespace.Env{Now: m.now, Opens: m.opens, Placer: metatest.Groups(8), Space: metatest.Free{Total: 1 << 40, Left: 1 << 39}}
	got, _, _, err := namespace.Evaluate(&m.mem, &env, &namespace.Call{Session: 1, Cred: &cred, Body: body})
	if err != nil {
		m.mem.Discard()
		return err
	}
	m.mem.Commit()
	switch r := reply.(type) {
	case *wire.Entry:
		*r = *got.(*wire.Entry)
	case *wire.VolumeReply:
		*r = *got.(*wire.VolumeReply)
	case *wire.ReaddirReply:
		*r = *got.(*wire.ReaddirReply)
	}
	return nil
}

// Do implements Asker.
func (m *masters) Do(_ context.Context, cred ashlar.Cred, body, reply wire.Message) error {
	if m.lie != nil && m.lie(body, reply) {
		return nil
	}
	return m.evaluate(cred, body, reply)
}

// notes notes with times that overlap by chance, up to late, those of what came
// before and after.
type notes struct {
	ops  []history.Op
	rng  *rand.Rand
	now  int64
	late int64
	full bool
}

func (n *notes) Begin(o *history.Op) {
	n.now += 10
	o.Call = n.now - n.rng.Int64N(n.late)
}

func (n *notes) End(o *history.Op, err error) {
	o.Errno, _ = history.Errno(err)
	o.Return = n.now + n.rng.Int64N(n.late)
	n.ops = append(n.ops, *o)
}

func (n *notes) Full(string) bool { return n.full }

// work has three workers do 400 steps in turn on two trees, and reads all.
func work(t *testing.T, seed uint64, late int64, m *masters) *notes {
	t.Helper()
	m.opens = metatest.Opens{}
	key.StoreNumber(&m.mem, key.PoolName("default"), uint32(1))
	var v wire.VolumeReply
	if err := m.evaluate(root, &wire.SetVolume{Name: "main"}, &v); err != nil {
		t.Fatal(err)
	}
	var trees []Tree
	for _, name := range []string{"t0", "t1"} {
		var e wire.Entry
		if err := m.evaluate(root, &wire.Make{Parent: v.Root, Name: name, Type: ashlar.TypeDir}, &e); err != nil {
			t.Fatal(err)
		}
		trees = append(trees, Tree{Key: name, Top: e.Attr.Inode})
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	n, id := &notes{rng: rng, late: late}, uint64(0)
	var workers []*Worker
	for range 3 {
		workers = append(workers, &Worker{Ask: m, Notes: n, Trees: trees, Rand: rng, NewID: func() uint64 { id++; return id }})
	}
	for i := range 400 {
		workers[i%len(workers)].Step(t.Context())
	}
	n.full = true
	for range 20 {
		workers[0].Step(t.Context())
		workers[1].Read(t.Context())
	}
	if err := workers[0].Last(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := workers[0].ReadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func check(n *notes) error { return history.Check(n.ops, time.Minute, "") }

// The namespace that the masters have answers as the model does, and the work
// meets every operation and every error.
func TestTheMastersNamespaceIsTheModels(t *testing.T) {
	met := map[string]int{}
	for seed := range uint64(30) {
		n := work(t, seed, 25, &masters{})
		if err := check(n); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range n.ops {
			o := &n.ops[i]
			met[string(o.Kind)+" "+o.Errno]++
			if o.Errno == "" && o.Kind == history.Rename && o.Dir != o.ToDir {
				met["across"]++
			}
		}
	}
	for _, want := range []string{
		"across", "create ", "create exist", "create stale", "mkdir ", "mkdir exist", "unlink ", "unlink noent", "unlink isdir", "unlink stale",
		"rmdir ", "rmdir noent", "rmdir notdir", "rmdir notempty", "rename ", "rename noent", "rename notempty", "rename isdir", "rename notdir",
		"rename inval", "rename-new ", "rename-new exist", "exchange ", "exchange noent", "exchange inval", "link ", "link exist", "link stale",
		"link perm", "lookup ", "lookup noent", "lookup stale", "stat ", "stat stale", "list ", "list stale",
	} {
		if met[want] == 0 {
			t.Errorf("%q is never met", want)
		}
	}
}

// Each of these lies is told once and found.
func TestLiesAreFound(t *testing.T) {
	for name, lie := range map[string]func(m *masters, body, reply wire.Message) bool{
		"a rename is answered and not done": func(m *masters, body, reply wire.Message) bool {
			r, ok := body.(*wire.Rename)
			return ok && r.OldParent != r.NewParent && m.would(body, reply)
		},
		"a file is made and forgotten": func(m *masters, body, reply wire.Message) bool {
			r, ok := body.(*wire.Make)
			return ok && r.Type == ashlar.TypeFile && m.would(body, reply)
		},
		"a rename leaves the old name": func(m *masters, body, reply wire.Message) bool {
			r, ok := body.(*wire.Rename)
			var e wire.Entry
			if !ok || r.Flags != 0 || r.OldParent == r.NewParent || m.evaluate(root, &wire.Lookup{Parent: r.OldParent, Name: r.OldName}, &e) != nil {
				return false
			}
			return e.Attr.Type == ashlar.TypeFile && m.evaluate(root, r, reply) == nil &&
				m.evaluate(root, &wire.Link{Inode: e.Attr.Inode, Parent: r.OldParent, Name: r.OldName}, &wire.Entry{}) == nil
		},
		"a name is removed twice": func(m *masters, body, reply wire.Message) bool {
			r, ok := body.(*wire.Remove)
			if !ok || m.evaluate(root, r, reply) != nil {
				return false
			}
			m.late = r
			return true
		},
		"a read is of the past": func(m *masters, body, reply wire.Message) bool {
			r, ok := reply.(*wire.ReaddirReply)
			return ok && m.evaluate(root, body, reply) == nil && len(r.Entries) > 0 && func() bool { r.Entries = r.Entries[1:]; return true }()
		},
	} {
		t.Run(name, func(t *testing.T) {
			found, told := 0, 0
			for seed := range uint64(10) {
				m, steps := &masters{}, 0
				once := false
				m.lie = func(body, reply wire.Message) bool {
					steps++
					if m.late != nil && wire.Changes(body) {
						// The retry of what was removed, when the name is there again.
						if err := m.evaluate(root, body, reply); err != nil {
							return false
						}
						if mk, ok := body.(*wire.Make); ok && mk.Parent == m.late.Parent && mk.Name == m.late.Name {
							_ = m.evaluate(root, m.late, &wire.Entry{})
							m.late = nil
						}
						return true
					}
					if once || steps < 100 {
						return false
					}
					once = lie(m, body, reply)
					return once
				}
				n := work(t, seed, 1, m)
				if !once || m.late != nil {
					continue
				}
				if told++; check(n) != nil {
					found++
				}
			}
			if told < 5 || found < told {
				t.Errorf("found %d of %d lies", found, told)
			}
		})
	}
}
