package wire

import "github.com/ashlarfs/ashlar"

// Origin is what a chunk notes of the file it is part of, so that files can be
// put together from disks alone when all masters are gone: whose data it is,
// the name it had when the chunk was last written or scrubbed, and how the
// file's bytes go round its chunks. All of it but Owner is a hint: files are
// renamed, given away and striped anew without a word to their chunks.
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
	// Hint is "volume:/path", at most HintMax bytes from its end.
	Hint string
	// Mtime is the time of the file's last change, nanoseconds since 1970, as
	// the masters told it and nothing was written to the chunk since; 0 if that
	// is not known.
	Mtime int64
}

// Restated is what a chunk notes that noted o when somebody says n of its
// file, who knows no name if n has none. Where the chunk is in the file does
// not change.
func (o Origin) Restated(n *Origin) Origin {
	if n.Hint != "" {
		o.UID, o.GID, o.Mode, o.Hint = n.UID, n.GID, n.Mode, n.Hint[max(0, len(n.Hint)-HintMax):]
	}
	o.Mtime = n.Mtime
	return o
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
	I64(c, &o.Mtime)
}

// Origins asks the leader what chunks of some inodes should note. It is asked
// by a chunkserver that scrubs. Answer: OriginsReply.
type Origins struct {
	Session ashlar.SessionID
	Inodes  []ashlar.Inode // up to OriginsMax
}

// OriginsMax is how many inodes one Origins asks about.
const OriginsMax = 256

// Kind implements Message.
func (*Origins) Kind() Kind { return kindOrigins }

// Fields implements Message.
func (m *Origins) Fields(c *Codec) {
	U64(c, &m.Session)
	List(c, &m.Inodes, OriginsMax, U64[ashlar.Inode])
}

// OriginsReply has an Origin for each inode asked about, without where a chunk
// is in the file; Owner 0 for one that is not there or has no name.
type OriginsReply struct {
	Origins []Origin
}

// Kind implements Message.
func (*OriginsReply) Kind() Kind { return kindOriginsReply }

// Fields implements Message.
func (m *OriginsReply) Fields(c *Codec) {
	List(c, &m.Origins, OriginsMax, func(c *Codec, o *Origin) { o.fields(c) })
}
