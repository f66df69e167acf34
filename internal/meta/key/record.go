package key

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Record is a value of the store. Fields begins with Version.
type Record interface {
	Fields(c *wire.Codec)
}

// Version codes a record's first byte. A reader that does not know the
// version fails: nothing of a newer format is written before every master
// supports it.
func Version(c *wire.Codec, v uint8) {
	got := v
	wire.U8(c, &got)
	if c.Err() == nil && got != v {
		c.Fail("record version %d, know %d", got, v)
	}
}

// VersionSince codes a record's first byte as Version does, and reads older
// versions from oldest on too; it returns which one is being read or written.
func VersionSince(c *wire.Codec, oldest, v uint8) uint8 {
	got := v
	wire.U8(c, &got)
	if c.Err() == nil && (got < oldest || got > v) {
		c.Fail("record version %d, know %d to %d", got, oldest, v)
	}
	return got
}

// Decode reads a record from a value; all of the value must be used.
func Decode(value []byte, r Record) error {
	c := wire.Decoder(value)
	r.Fields(c)
	return c.Finish()
}

// Encode returns the value of a record. A record that does not fit its own
// limits is a broken invariant.
func Encode(r Record) []byte { return EncodeSize(r, 64) }

// EncodeSize is Encode with a guess at the size of the value.
func EncodeSize(r Record, size int) []byte {
	c := wire.Encoder(make([]byte, 0, size))
	r.Fields(c)
	if c.Err() != nil {
		panic(fmt.Sprintf("key: record %T: %v", r, c.Err()))
	}
	return c.Bytes()
}

// Load reads the record at k; ok tells whether there is one. A record that
// can not be decoded is an error of kind ashlar.Corrupt that names the key.
func Load(tx Tx, k []byte, r Record) (ok bool, err error) {
	v, ok := tx.Get(k)
	if !ok {
		return false, nil
	}
	if err := Decode(v, r); err != nil {
		return false, ashlar.E("read metadata", ashlar.Corrupt, String(k), err)
	}
	return true, nil
}

// Store writes a record.
func Store(tx Tx, k []byte, r Record) { tx.Set(k, Encode(r)) }

// Number is the record of a counter or of an index that leads to an id.
type Number uint64

// Fields implements Record.
func (n *Number) Fields(c *wire.Codec) {
	Version(c, 1)
	wire.U64(c, n)
}

// Mark is the record of an index entry that says all in its key.
type Mark struct{}

// Fields implements Record.
func (*Mark) Fields(c *wire.Codec) { Version(c, 1) }

// LoadNumber reads a Number.
func LoadNumber(tx Tx, k []byte) (n uint64, ok bool, err error) {
	var r Number
	ok, err = Load(tx, k, &r)
	return uint64(r), ok, err
}

// StoreNumber writes a Number.
func StoreNumber[T ~uint32 | ~uint64](tx Tx, k []byte, n T) {
	r := Number(n)
	tx.Set(k, EncodeSize(&r, 9))
}

// StoreMark writes a Mark.
func StoreMark(tx Tx, k []byte) { tx.Set(k, []byte{1}) }

// Next gives out the next id of a counter, 1 first, and never the same again.
func Next(tx Tx, p ashlar.Partition, which uint8) (uint64, error) { return NextN(tx, p, which, 1) }

// NextN gives out n consecutive ids and returns the first.
func NextN(tx Tx, p ashlar.Partition, which uint8, n uint64) (uint64, error) {
	k := Counter(p, which)
	id, ok, err := LoadNumber(tx, k)
	if err != nil {
		return 0, err
	}
	if !ok {
		id = 1
	}
	StoreNumber(tx, k, id+n)
	return id, nil
}
