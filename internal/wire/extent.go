package wire

import "github.com/ashlarfs/ashlar"

// RunsMax is the most runs of data in one chunk.
const RunsMax = ashlar.ChunkSizeMax / ashlar.BlockSize / 2

// Runs asks where in [Off, Off+Len) of a chunk data is; what is not data reads
// as zeros. Only the primary answers, with a RunsReply, once the writes in
// flight there are done.
type Runs struct {
	Address
	Off uint32
	Len uint32
}

// Kind implements Message.
func (*Runs) Kind() Kind { return kindRuns }

// Fields implements Message.
func (m *Runs) Fields(c *Codec) {
	m.Address.fields(c)
	U32(c, &m.Off)
	U32(c, &m.Len)
}

// RunsReply lists runs of data, in order: Starts and Ends in bytes of the
// chunk, whole blocks. If there are none, Next is the first chunk after this
// one that the group has anything of, ^0 if there is none.
type RunsReply struct {
	Starts []uint32
	Ends   []uint32
	Next   uint32
}

// Kind implements Message.
func (*RunsReply) Kind() Kind { return kindRunsReply }

// Fields implements Message.
func (m *RunsReply) Fields(c *Codec) {
	U32s(c, &m.Starts, RunsMax)
	U32s(c, &m.Ends, RunsMax)
	U32(c, &m.Next)
	if len(m.Starts) != len(m.Ends) {
		c.Fail("%d starts and %d ends of runs", len(m.Starts), len(m.Ends))
	}
}

// CopyRange is a Write of what is at SourceOff of another chunk, which the
// primary fetches itself: from its own disk, or from SourceAddr, where the
// primary of the source is. Source carries what a Read of it would. Answer:
// Empty.
type CopyRange struct {
	Address
	Origin
	Seq        uint64
	Lowest     uint64
	Flags      uint32 // of Write
	Off        uint32
	Len        uint32
	ChunkSize  uint32
	Source     Address
	SourceAddr string
	SourceOff  uint32
}

// Kind implements Message.
func (*CopyRange) Kind() Kind { return kindCopyRange }

// Fields implements Message.
func (m *CopyRange) Fields(c *Codec) {
	m.Address.fields(c)
	U64(c, &m.Seq)
	U64(c, &m.Lowest)
	U32(c, &m.Flags)
	U32(c, &m.Off)
	U32(c, &m.Len)
	U32(c, &m.ChunkSize)
	m.Origin.fields(c)
	m.Source.fields(c)
	Text(c, &m.SourceAddr, textMax)
	U32(c, &m.SourceOff)
}
