package wire

import "github.com/ashlarfs/ashlar"

// Origin is what a chunk notes of the file it is part of, so that files can be
// put together from disks alone when all masters are gone: whose data it is,
// the name it had when the chunk was made, and how the file's bytes go round
// its chunks. All of it but Owner is a hint: files are renamed, given away and
// striped anew without a word to their chunks.
type Origin struct {
	Owner ashlar.Inode
	UID   uint32
	GID   uint32
	Mode  uint16
	// Width, Unit and First are of the layout's segment that the chunk belongs
	// to; Width 0 says that they are not known.
	Width uint8
	Unit  uint32 // bytes
	First uint32 // index of the segment's first chunk
	// Hint is "volume:/path".
	Hint string
}

func (o *Origin) fields(c *Codec) {
	U64(c, &o.Owner)
	U32(c, &o.UID)
	U32(c, &o.GID)
	U16(c, &o.Mode)
	U8(c, &o.Width)
	U32(c, &o.Unit)
	U32(c, &o.First)
	Text(c, &o.Hint, ashlar.PathMax)
}
