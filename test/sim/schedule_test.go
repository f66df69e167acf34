package sim

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar/internal/wire"
)

func TestASchedulesTextIsReadAsItWasWritten(t *testing.T) {
	for seed := range uint64(200) {
		want := draw(Shape(seed), faultsFor)
		var b bytes.Buffer
		if err := want.Write(&b); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSchedule(&b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %v\n%v\n%v", seed, err, got, want)
		}
	}
}

func TestABadScheduleIsRefusedByLine(t *testing.T) {
	for text, want := range map[string]string{
		"1s kill n1 1s\n1s fly n1 1s": `line 2: no fault "fly"`,
		"1s kill 1s":                  "takes 1 words",
		"x kill n1 1s":                "invalid duration",
		"1s disk n1 one full 1s":      `disk "one"`,
		"1s disk n1 1 dance 1s":       `does not do "dance"`,
		"1s":                          "want a time",
	} {
		if _, err := ReadSchedule(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFramesAreFoundHoweverTheStreamIsCut(t *testing.T) {
	frame := func(kind wire.Kind, body int) []byte {
		b := make([]byte, wire.HeaderSize+body)
		b[0], b[8], b[9] = byte(body), byte(kind), byte(kind>>8)
		return b
	}
	var stream []byte
	stream = append(stream, wire.Preface...)
	for i, k := range []wire.Kind{1, raftKind, 90, raftKind, raftKind} {
		stream = append(stream, frame(k, 10*i+1)...)
	}
	for size := 1; size <= len(stream); size++ {
		f := frames{first: true}
		var got []byte
		rafts := 0
		for at := 0; at < len(stream); at += size {
			for _, p := range f.cut(stream[at:min(at+size, len(stream))]) {
				got = append(got, p.data...)
				if p.raft {
					rafts++
				}
			}
		}
		if !bytes.Equal(got, stream) || !f.whole() {
			t.Fatalf("pieces of %d: bytes differ or a frame is open", size)
		}
		if size == len(stream) && rafts != 3 {
			t.Errorf("%d consensus packets found in one piece, want 3", rafts)
		}
	}
}
