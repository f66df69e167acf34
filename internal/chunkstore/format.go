package chunkstore

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A chunk file, version 1 (docs/format/chunk.md). Integers are little-endian.
//
//	   0  file header    64 bytes, vfs/header, magic "ASHLCHNK"
//	  64  group          u32
//	  68  index          u32
//	  72  layer          u64
//	  80  chunk size     u32, a power of two
//	  84  shard          u16, 0
//	  86  hint length    u16, at most 1016
//	  88  owner          u64, inode
//	  96  changed        u64, the epoch of the chunk's last change
//	 104  hint crc       u32, CRC-32C of mtime and hint
//	 108  uid            u32
//	 112  gid            u32
//	 116  mode           u16
//	 118  width          u8, of the layout's segment; 0: not known
//	 119  unit           u8, log2 of its stripe unit
//	 120  first          u32, index of the segment's first chunk
//	 124  crc            u32, CRC-32C of bytes 64-123
//	 128  mtime          i64, ns, of the file as the masters told it; 0: not known
//	 136  hint           1016 bytes, "volume:/path" of the owner
//	1152  region record  128 bytes for each 64 KiB of the chunk, in order
//	   D  data           block b of the chunk at D + 4096 b
//
// D is the end of the records rounded up to 64 KiB: 64 KiB up to chunks of
// 16 MiB, 128 KiB for 32 MiB, 192 KiB for 64 MiB. The file is sparse; the
// records of the first 23 regions lie in its first page, so that a small file
// costs one page besides its data. Everything that changes together lies in
// one 512-byte sector.
//
// A region record; the region's all-zero record means 16 absent blocks:
//
//	  0  sums      16 x u32, CRC-32C of each block, padded with zeros to 4 KiB
//	 64  states    u32, two bits a block, block 0 lowest: see State
//	 68  reserved  u32, zero
//	 72  epoch     u64, of the region's last change
//	 80  end       u32, of the last byte written in the region
//	 84  reserved  40 bytes, zero
//	124  crc       u32, CRC-32C of bytes 0-123, begun with s xor 2654435761 r,
//	               where s is the CRC-32C of group u32, layer u64, index u32
//	               and r the region's number
const (
	chunkVersion = 1
	// HintMax is how much of a path hint is kept, in bytes.
	HintMax = wire.HintMax

	fixedOff    = header.Size
	fixedEnd    = 128
	hintOff     = fixedEnd + 8
	recordsOff  = hintOff + HintMax
	recordSize  = 128
	pageSize    = 4096
	dataAlign   = 64 << 10
	firstPage   = (pageSize - recordsOff) / recordSize // records in page 0
	perPage     = pageSize / recordSize
	perRegion   = ashlar.RegionSize / ashlar.BlockSize
	regionsMost = ashlar.ChunkSizeMax / ashlar.RegionSize
)

var chunkMagic = header.Magic([]byte("ASHLCHNK"))

// State is the presence of a block. The numbers are part of the disk format
// and of wire.Copy.
type State = byte

// The states of a block.
const (
	Absent State = 0 // never written here: the parent's, zeros if there is none
	Data   State = 1
	Zero   State = 2
	Lost   State = 3 // its record was damaged: reading it is an error
)

// dataOff returns where the data of a chunk begins in its file.
func dataOff(chunkSize uint32) int64 {
	end := recordsOff + recordSize*int64(chunkSize/ashlar.RegionSize)
	return (end + dataAlign - 1) / dataAlign * dataAlign
}

// recordOff returns where the record of a region is.
func recordOff(region int) int64 { return recordsOff + recordSize*int64(region) }

// metaPageOf returns the page of the file a region's record is in, and the
// record's place among those of the page.
func metaPageOf(region int) (page, slot int) {
	if region < firstPage {
		return 0, region
	}
	return 1 + (region-firstPage)/perPage, (region - firstPage) % perPage
}

func validChunkSize(n uint32) bool {
	return n >= ashlar.ChunkSizeMin && n <= ashlar.ChunkSizeMax && n&(n-1) == 0
}

// chunkHeader is what a chunk says about itself.
type chunkHeader struct {
	cluster ashlar.ClusterID
	key     Key
	size    uint32
	changed ashlar.Epoch
	origin  wire.Origin
}

// encode fills b, recordsOff bytes.
func (h *chunkHeader) encode(b []byte) {
	clear(b[:recordsOff])
	copy(b, header.Header{Magic: chunkMagic, Version: chunkVersion, Cluster: h.cluster}.Encode())
	le := binary.LittleEndian
	le.PutUint32(b[64:], uint32(h.key.Group))
	le.PutUint32(b[68:], h.key.Index)
	le.PutUint64(b[72:], uint64(h.key.Layer))
	le.PutUint32(b[80:], h.size)
	le.PutUint16(b[86:], uint16(len(h.origin.Hint)))
	le.PutUint64(b[88:], uint64(h.origin.Owner))
	le.PutUint64(b[96:], uint64(h.changed))
	le.PutUint64(b[fixedEnd:], uint64(h.origin.Mtime))
	n := copy(b[hintOff:], h.origin.Hint)
	le.PutUint32(b[104:], checksum.Of(b[fixedEnd:hintOff+n]))
	h.encodeOrigin(b)
	le.PutUint32(b[124:], checksum.Of(b[fixedOff:124]))
}

func (h *chunkHeader) encodeOrigin(b []byte) {
	le, o := binary.LittleEndian, &h.origin
	le.PutUint32(b[108:], o.UID)
	le.PutUint32(b[112:], o.GID)
	le.PutUint16(b[116:], o.Mode)
	if o.Unit > 0 {
		b[118], b[119] = o.Width, byte(bits.Len32(o.Unit)-1)
		le.PutUint32(b[120:], o.First)
	}
}

func (h *chunkHeader) decodeOrigin(b []byte) {
	le, o := binary.LittleEndian, &h.origin
	o.Owner = ashlar.Inode(le.Uint64(b[88:]))
	o.UID, o.GID, o.Mode = le.Uint32(b[108:]), le.Uint32(b[112:]), le.Uint16(b[116:])
	if o.Width = b[118]; o.Width > 0 && b[119] < 32 {
		o.Unit, o.First = 1<<b[119], le.Uint32(b[120:])
	}
}

// decodeChunkHeader reads the header of a chunk of a cluster. A hint that is
// damaged, or was being changed when power was lost, is dropped: it is only a
// hint.
func decodeChunkHeader(b []byte, cluster ashlar.ClusterID, name string) (chunkHeader, error) {
	var h chunkHeader
	fh, err := header.Decode(b, header.Header{Magic: chunkMagic, Version: chunkVersion, Cluster: cluster}, name)
	if err != nil {
		return h, err
	}
	bad := func(format string, args ...any) (chunkHeader, error) {
		return h, ashlar.E("read header of", ashlar.Corrupt, name, fmt.Errorf(format, args...))
	}
	if len(b) < recordsOff {
		return bad("%d bytes, want %d", len(b), recordsOff)
	}
	le := binary.LittleEndian
	if got, want := checksum.Of(b[fixedOff:124]), le.Uint32(b[124:]); got != want {
		return bad("checksum %08x, want %08x", got, want)
	}
	h.cluster = fh.Cluster
	h.key = Key{Group: ashlar.PGID(le.Uint32(b[64:])), Index: le.Uint32(b[68:]), Layer: ashlar.LayerID(le.Uint64(b[72:]))}
	h.size = le.Uint32(b[80:])
	h.decodeOrigin(b)
	h.changed = ashlar.Epoch(le.Uint64(b[96:]))
	n := int(le.Uint16(b[86:]))
	if !validChunkSize(h.size) || n > HintMax || le.Uint16(b[84:]) != 0 {
		return bad("chunk size %d, hint of %d bytes, shard %d", h.size, n, le.Uint16(b[84:]))
	}
	if checksum.Of(b[fixedEnd:hintOff+n]) == le.Uint32(b[104:]) {
		h.origin.Hint, h.origin.Mtime = string(b[hintOff:hintOff+n]), int64(le.Uint64(b[fixedEnd:]))
	}
	return h, nil
}

// region is a region record in memory.
type region struct {
	sums   [perRegion]uint32
	states uint32
	epoch  ashlar.Epoch
	end    uint32 // of the last byte written, as far as is known
}

// blocksEnd returns where the last block that is not absent ends.
func (r *region) blocksEnd() uint32 {
	return uint32((bits.Len32(r.states)+1)/2) * ashlar.BlockSize
}

func (r *region) state(block int) State { return State(r.states >> (2 * block) & 3) }

func (r *region) set(block int, s State, sum uint32) {
	r.states = r.states&^(3<<(2*block)) | uint32(s)<<(2*block)
	r.sums[block] = sum
}

// allLost is the states of a region whose record is damaged.
const allLost = ^uint32(0)

// recordSalt begins the checksum of a chunk's records, so that a record which
// strayed from another chunk is not believed.
func recordSalt(k Key) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint32(b[0:], uint32(k.Group))
	binary.LittleEndian.PutUint64(b[4:], uint64(k.Layer))
	binary.LittleEndian.PutUint32(b[12:], k.Index)
	return checksum.Of(b[:])
}

// recordSum is the checksum of a record in its place: the multiplication, by
// an odd number, gives each region another beginning.
func recordSum(salt uint32, index int, b []byte) uint32 {
	return checksum.Update(salt^uint32(index)*2654435761, b[:124])
}

// encode fills b, recordSize bytes, with the record of a chunk's region.
func (r *region) encode(b []byte, salt uint32, index int) {
	le := binary.LittleEndian
	for i, s := range r.sums {
		le.PutUint32(b[4*i:], s)
	}
	le.PutUint32(b[64:], r.states)
	le.PutUint32(b[68:], 0)
	le.PutUint64(b[72:], uint64(r.epoch))
	le.PutUint32(b[80:], r.end)
	clear(b[84:124])
	le.PutUint32(b[124:], recordSum(salt, index, b))
}

// decode reads a record. A damaged one makes every block Lost and is false.
func (r *region) decode(b []byte, salt uint32, index int) bool {
	*r = region{}
	if isZero(b[:recordSize]) {
		return true
	}
	le := binary.LittleEndian
	if recordSum(salt, index, b) != le.Uint32(b[124:]) {
		r.states = allLost
		r.epoch = ^ashlar.Epoch(0)
		return false
	}
	for i := range r.sums {
		r.sums[i] = le.Uint32(b[4*i:])
	}
	r.states = le.Uint32(b[64:])
	r.epoch = ashlar.Epoch(le.Uint64(b[72:]))
	r.end = min(le.Uint32(b[80:]), r.blocksEnd())
	return true
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
