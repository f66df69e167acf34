package wire

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/ashlarfs/ashlar"
)

// fill sets every settable field of v to something that is not its zero.
func fill(v reflect.Value, n *uint64, depth int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		fill(v.Elem(), n, depth)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n, depth)
		}
	case reflect.Slice:
		if depth > 3 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n, depth+1)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n, depth)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("s")
	case reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(*n % 251)
		if v.Type() == reflect.TypeFor[ashlar.LeaseMode]() {
			v.SetUint(*n % 3)
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(&Lookup{Parent: 7, Name: "n"}))
	}
}

// normal removes what the wire does not carry: payloads, and layouts that
// would be refused.
func normal(m Message) {
	switch m := m.(type) {
	case *Write:
		m.Data = nil
	case *Replicate:
		m.Write.Data = nil
	case *ReadReply:
		m.Data = nil
	case *Copy:
		m.Data = nil
	case *FetchReply:
		m.Data = nil
	case *Raft:
		m.Data = nil
	case *SnapshotData:
		m.Data = nil
	case *Entry:
		m.Object.Layout.Segments = nil
	case *ReserveReply:
		m.Entry.Object.Layout.Segments = nil
	case *ReaddirReply:
		for i := range m.Entries {
			m.Entries[i].Object.Layout.Segments = nil
		}
	case *LockReply:
		for i := range m.Entries {
			m.Entries[i].Object.Layout.Segments = nil
		}
	case *SetLock:
		normalLock(&m.Lock)
	case *WaitLock:
		normalLock(&m.Lock)
	case *TestLock:
		normalLock(&m.Lock)
	case *SetName:
		m.Mode = PW
	case *WaitName:
		m.Want.Mode = CR
	case *NameReply:
		m.Mode = EX
	case *WatchNameReply:
		m.Held, m.Wanted = PR, CW
	case *ListLocksReply:
		for i := range m.Locks {
			m.Locks[i].Mode = NL
		}
	}
}

// normalLock makes a lock one that is not refused.
func normalLock(l *Lock) { l.Class, l.Type, l.Start = LockOFD, Exclusive, l.End-1 }

func TestALockOfNothingIsRefused(t *testing.T) {
	good := Lock{Class: LockFlock, Type: Shared, End: LockEnd}
	for _, bad := range []func(*Lock){
		func(*Lock) {},
		func(l *Lock) { l.Class = 0 },
		func(l *Lock) { l.Class = LockFlock + 1 },
		func(l *Lock) { l.Type = Exclusive + 1 },
		func(l *Lock) { l.Start, l.End = 2, 1 },
		func(l *Lock) { l.End = LockEnd + 1 },
	} {
		m := SetLock{Lock: good}
		bad(&m.Lock)
		b, err := Encode(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		if refused := Decode(b, new(SetLock)) != nil; refused != (m.Lock != good) {
			t.Errorf("%+v: refused %v", m.Lock, refused)
		}
	}
}

func TestEveryMessageSurvivesARoundTrip(t *testing.T) {
	for _, k := range Kinds() {
		m := New(k)
		if m.Kind() != k {
			t.Errorf("kind %d makes a message of kind %d", k, m.Kind())
		}
		var n uint64
		fill(reflect.ValueOf(m), &n, 0)
		normal(m)
		b, err := Encode(nil, m)
		if err != nil {
			t.Errorf("%T: encode: %v", m, err)
			continue
		}
		got := New(k)
		if err := Decode(b, got); err != nil {
			t.Errorf("%T: decode: %v", m, err)
			continue
		}
		if !reflect.DeepEqual(m, got) {
			t.Errorf("%T: round trip changed\n%+v\nto\n%+v", m, m, got)
		}
		for i := range b {
			if Decode(b[:i], New(k)) == nil {
				t.Errorf("%T: decoded from %d of %d bytes", m, i, len(b))
			}
		}
	}
}

func TestALayoutWithDangerousArithmeticIsRefused(t *testing.T) {
	for _, bad := range []func(*Object){
		func(o *Object) { o.Layout.ChunkSize = 0 },
		func(o *Object) { o.Layout.ChunkSize = 3 << 16 },
		func(o *Object) { o.Layout.Segments[0].Groups = nil },
		func(o *Object) { o.Layout.Segments[0].StripeUnit = 0 },
		func(o *Object) { o.Layout.Segments[0].First = 1 },
	} {
		var e Entry
		var n uint64
		fill(reflect.ValueOf(&e), &n, 0)
		e.Object.Layout.ChunkSize = 1 << 20
		e.Object.Layout.Segments[0].First = 0
		e.Object.Layout.Segments[0].StripeUnit = 1 << 16
		b, err := Encode(nil, &e)
		if err != nil || Decode(b, new(Entry)) != nil {
			t.Fatal("the good layout is refused")
		}
		bad(&e.Object)
		b, _ = Encode(nil, &e)
		if Decode(b, new(Entry)) == nil {
			t.Errorf("accepted %+v", e.Object.Layout)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, k := range Kinds() {
		m := New(k)
		var n uint64
		fill(reflect.ValueOf(m), &n, 0)
		normal(m)
		b, _ := Encode(nil, m)
		f.Add(uint16(k), b)
	}
	f.Fuzz(func(t *testing.T, k uint16, b []byte) {
		m := New(Kind(k))
		if m == nil || Decode(b, m) != nil {
			return
		}
		again, err := Encode(nil, m)
		if err != nil {
			t.Fatalf("%T decoded but does not encode: %v", m, err)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("%T has two encodings:\n%x\n%x", m, b, again)
		}
	})
}
