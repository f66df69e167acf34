package consensus

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/consensus/wal"
)

// A packet is what one Transport.Send carries: messages of one member to
// another. Integers are uvarints unless said otherwise.
//
//	version   u8, 2
//	from, to
//	count     of messages
//	each message:
//	  type       u8, as in raftpb.MessageType
//	  flags      u8: 1 reject
//	  term, log term, index, commit, reject hint
//	  stamp      u64 little-endian: the leader's clock when it sent an append,
//	             heartbeat or call to take over, and the latest taken of
//	             these in the answer; the leader's lease is counted from it
//	  life       how often the sending member was started: proof that one life
//	             of a leader is over says nothing of the next
//	  context    length, bytes
//	  entries    count; each: term, type u8, length, data. Their indexes
//	             follow the message's index.
const packetVersion = 2

// Limits of a packet.
const (
	// PacketMax is the largest packet, in bytes.
	PacketMax = wal.EntryMax + packetTarget + 4096
	// packetTarget is where a packet is closed and the next begun, in bytes.
	packetTarget = 1 << 20
	// packetMessagesMax is the most messages in a packet.
	packetMessagesMax = 1024
	// contextMax bounds a message's context, in bytes.
	contextMax = 1024
	// entryMin is the least an encoded entry takes, and messageMin the least
	// a message does, in bytes.
	entryMin   = 3
	messageMin = 18
)

const flagReject = 1

// message is a raft message with the time that leases are counted from and the
// incarnation of the member that sent it.
type message struct {
	*raftpb.Message
	stamp int64
	life  uint64
}

// accepted tells which messages come from other members; all others are made
// and used inside one, or, as checkpoints, come another way.
func accepted(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgHeartbeat,
		raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow, raftpb.MsgPreVote, raftpb.MsgPreVoteResp:
		return true
	}
	return false
}

func appendPacketHeader(b []byte, from, to uint64, count int) []byte {
	b = append(b, packetVersion)
	b = binary.AppendUvarint(b, from)
	b = binary.AppendUvarint(b, to)
	return binary.AppendUvarint(b, uint64(count))
}

func appendMessage(b []byte, m message) []byte {
	flags := byte(0)
	if m.GetReject() {
		flags = flagReject
	}
	b = append(b, byte(m.GetType()), flags)
	for _, n := range [...]uint64{m.GetTerm(), m.GetLogTerm(), m.GetIndex(), m.GetCommit(), m.GetRejectHint()} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(m.stamp))
	b = binary.AppendUvarint(b, m.life)
	b = binary.AppendUvarint(b, uint64(len(m.Context)))
	b = append(b, m.Context...)
	b = binary.AppendUvarint(b, uint64(len(m.Entries)))
	for _, e := range m.Entries {
		b = binary.AppendUvarint(b, e.GetTerm())
		b = append(b, byte(e.GetType()))
		b = binary.AppendUvarint(b, uint64(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b
}

// encodePackets returns packets with messages, which go from one member to
// another.
func encodePackets(from, to uint64, messages []message) [][]byte {
	var packets [][]byte
	for len(messages) > 0 {
		n, size := 0, 0
		for n < len(messages) && n < packetMessagesMax && (n == 0 || size < packetTarget) {
			s := 128 + len(messages[n].Context)
			for _, e := range messages[n].Entries {
				s += len(e.Data) + 24
			}
			if n > 0 && size+s > packetTarget {
				break
			}
			n, size = n+1, size+s
		}
		b := appendPacketHeader(make([]byte, 0, size+32), from, to, n)
		for _, m := range messages[:n] {
			b = appendMessage(b, m)
		}
		packets = append(packets, b)
		messages = messages[n:]
	}
	return packets
}

// reader takes fields off a packet; after the first that is not there, bad is
// set and all are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// decodePacket is the inverse of encodePackets for the packet of one; data of
// entries points into b. The error's kind is Corrupt.
func decodePacket(b []byte) (from, to uint64, messages []message, err error) {
	bad := func(format string, args ...any) (uint64, uint64, []message, error) {
		return 0, 0, nil, ashlar.E("decode", ashlar.Corrupt, "packet", fmt.Errorf(format, args...))
	}
	if len(b) > PacketMax {
		return bad("%d bytes", len(b))
	}
	r := &reader{b: b}
	if v := r.byte(); v != packetVersion {
		return bad("version %d", v)
	}
	from, to = r.uvarint(), r.uvarint()
	count := r.uvarint()
	if r.bad || count > packetMessagesMax || count > uint64(len(r.b))/messageMin {
		return bad("%d messages", count)
	}
	messages = make([]message, 0, count)
	for range count {
		m, ok := decodeMessage(r, from, to)
		if !ok {
			return bad("malformed message")
		}
		messages = append(messages, m)
	}
	if len(r.b) != 0 {
		return bad("%d bytes after the last message", len(r.b))
	}
	return from, to, messages, nil
}

func decodeMessage(r *reader, from, to uint64) (message, bool) {
	typ, flags := raftpb.MessageType(r.byte()), r.byte()
	f := [...]uint64{r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint(), from, to}
	reject := flags&flagReject != 0
	m := message{Message: &raftpb.Message{
		Type: typ.Enum(), From: &f[5], To: &f[6],
		Term: &f[0], LogTerm: &f[1], Index: &f[2], Commit: &f[3], RejectHint: &f[4], Reject: &reject,
	}}
	if s := r.bytes(8); s != nil {
		m.stamp = int64(binary.LittleEndian.Uint64(s))
	}
	m.life = r.uvarint()
	n := r.uvarint()
	if n > contextMax {
		return m, false
	}
	if n > 0 {
		m.Context = r.bytes(n)
	}
	count := r.uvarint()
	if r.bad || !accepted(typ) || flags&^flagReject != 0 || f[0] == 0 || count > uint64(len(r.b))/entryMin || f[2] > 1<<62 {
		return m, false
	}
	if count > 0 && typ != raftpb.MsgApp {
		return m, false
	}
	return m, decodeEntries(r, m.Message, int(count))
}

func decodeEntries(r *reader, m *raftpb.Message, count int) bool {
	if count == 0 {
		return true
	}
	entries := make([]raftpb.Entry, count)
	numbers := make([]uint64, 2*count)
	m.Entries = make([]*raftpb.Entry, count)
	for i := range entries {
		e, n := &entries[i], numbers[2*i:2*i+2]
		n[0], n[1] = r.uvarint(), m.GetIndex()+1+uint64(i)
		e.Term, e.Index = &n[0], &n[1]
		if t := raftpb.EntryType(r.byte()); t != raftpb.EntryNormal {
			if t > raftpb.EntryConfChangeV2 {
				return false
			}
			e.Type = t.Enum()
		}
		size := r.uvarint()
		if size > wal.EntryMax {
			return false
		}
		if size > 0 {
			e.Data = r.bytes(size)
		}
		if r.bad || n[0] == 0 || n[0] > m.GetTerm() {
			return false
		}
		m.Entries[i] = e
	}
	return true
}
