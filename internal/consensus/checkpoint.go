package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/header"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// A checkpoint travels as a stream of frames, each
//
//	length  u32, of the payload
//	crc     u32, CRC-32C of the payload
//	payload
//
// The first payload is a header (package header, magic "ASHLRSNP") and
// meta; then for each file one with its name and size, and its contents in
// as many as it takes; an empty payload ends the stream.
const checkpointVersion = 1

// Limits of a checkpoint.
const (
	checkpointFrameMax = 256 << 10
	checkpointFilesMax = 1 << 20
	checkpointNameMax  = 255
)

// meta says what a checkpoint is and which message of raft it stands for.
type meta struct {
	from, to    uint64
	leaderTerm  uint64
	index, term uint64
	members     []byte // membership.encode, as of index
}

func metaFields(c *wire.Codec, m *meta) {
	for _, f := range []*uint64{&m.from, &m.to, &m.leaderTerm, &m.index, &m.term} {
		wire.U64(c, f)
	}
	wire.Blob(c, &m.members, 1<<20)
}

type fileInfo struct {
	name string
	size uint64
}

func fileFields(c *wire.Codec, f *fileInfo) {
	wire.Text(c, &f.name, checkpointNameMax)
	wire.U64(c, &f.size)
}

// received is a checkpoint on this member's disk that raft was told of.
type received struct {
	dir         string
	index, term uint64
	members     *membership
}

// sendCheckpoint makes a checkpoint and sends it to a member, in a goroutine
// of its own; raft asks again if it fails.
func (n *Node) sendCheckpoint(to, leaderTerm uint64) {
	n.mu.Lock()
	_, busy := n.sending[to]
	if !busy {
		n.sending[to] = n.applied.Load()
	}
	n.mu.Unlock()
	if busy {
		return
	}
	n.wg.Go(func() {
		err := n.makeAndSend(to, leaderTerm)
		status := raft.SnapshotFinish
		if err != nil {
			status = raft.SnapshotFailure
			n.log.Warn("consensus: checkpoint was not sent", "to", to, "err", err)
		}
		n.mu.Lock()
		delete(n.sending, to)
		n.mu.Unlock()
		n.inbox.put(event{call: func() { n.rn.ReportSnapshot(to, status) }})
	})
}

func (n *Node) makeAndSend(to, leaderTerm uint64) error {
	dir := n.dir(path.Join(snapDir, fmt.Sprintf("send-%d", to)))
	defer func() { _ = n.cfg.FS.RemoveAll(dir) }() // else the next start does
	n.checkpointMu.Lock()
	index, err := n.cfg.Machine.Checkpoint(dir)
	n.checkpointMu.Unlock()
	if err != nil {
		return err
	}
	term, err := n.storage.Term(index)
	if err != nil {
		return fmt.Errorf("checkpoint as of %d: %w", index, err)
	}
	m := meta{from: n.cfg.ID, to: to, leaderTerm: leaderTerm, index: index, term: term, members: n.membershipAt(index).encode()}
	r, w := io.Pipe()
	n.wg.Go(func() {
		_ = w.CloseWithError(writeCheckpoint(w, n.cfg.FS, dir, n.cfg.Cluster, m))
	})
	err = n.cfg.Transport.SendCheckpoint(n.ctx, to, r)
	return errors.Join(err, r.CloseWithError(ErrStopped))
}

func checkpointHeader(cluster ashlar.ClusterID) header.Header {
	return header.Header{Magic: header.Magic{'A', 'S', 'H', 'L', 'R', 'S', 'N', 'P'}, Version: checkpointVersion, Cluster: cluster}
}

// writeCheckpoint writes the stream of the files in dir.
func writeCheckpoint(w io.Writer, fsys vfs.FS, dir string, cluster ashlar.ClusterID, m meta) error {
	c := wire.Encoder(checkpointHeader(cluster).Encode())
	metaFields(c, &m)
	if err := writeFrame(w, c.Bytes()); err != nil {
		return err
	}
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := writeCheckpointFile(w, fsys, path.Join(dir, name), name); err != nil {
			return err
		}
	}
	return writeFrame(w, nil)
}

func writeCheckpointFile(w io.Writer, fsys vfs.FS, name, base string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	c := wire.Encoder(nil)
	fileFields(c, &fileInfo{base, uint64(size)})
	if err := writeFrame(w, c.Bytes()); err != nil {
		return err
	}
	buf := make([]byte, checkpointFrameMax)
	for off := int64(0); off < size; {
		p := buf[:min(int64(len(buf)), size-off)]
		if k, err := f.ReadAt(p, off); k < len(p) {
			return errors.Join(err, fmt.Errorf("%s changed while it was sent", base))
		}
		if err := writeFrame(w, p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func writeFrame(w io.Writer, p []byte) error {
	h := binary.LittleEndian.AppendUint32(nil, uint32(len(p)))
	h = binary.LittleEndian.AppendUint32(h, crc32.Checksum(p, castagnoli))
	if _, err := w.Write(h); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	_, err := w.Write(p)
	return err
}

func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var h [8]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n > checkpointFrameMax || int(n) > len(buf) {
		return nil, ashlar.E("read checkpoint", ashlar.Corrupt, "", fmt.Errorf("frame of %d bytes", n))
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return nil, err
	}
	if crc32.Checksum(buf[:n], castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
		return nil, ashlar.E("read checkpoint", ashlar.Corrupt, "", errors.New("checksum differs"))
	}
	return buf[:n], nil
}

// ReceiveCheckpoint takes the stream that member from sends and returns when
// raft was told of it. There is one at a time: a second is refused with Busy.
func (n *Node) ReceiveCheckpoint(ctx context.Context, from uint64, r io.Reader) error {
	if !n.receiveMu.TryLock() {
		return ashlar.E("receive checkpoint", ashlar.Busy, "", nil)
	}
	defer n.receiveMu.Unlock()
	n.receiveSeq++
	dir := n.dir(path.Join(snapDir, fmt.Sprintf("recv-%d", n.receiveSeq)))
	m, members, err := readCheckpoint(stoppable{n, r}, n.cfg.FS, dir, n.cfg.Cluster)
	if err == nil && (m.from != from || m.to != n.cfg.ID) {
		err = ashlar.E("receive checkpoint", ashlar.Invalid, "", fmt.Errorf("of %d for %d came from %d to %d", m.from, m.to, from, n.cfg.ID))
	}
	if err != nil {
		return errors.Join(err, n.cfg.FS.RemoveAll(dir))
	}
	rec := &received{dir: dir, index: m.index, term: m.term, members: members}
	return n.do(ctx, func() { n.stepCheckpoint(rec, m) })
}

// stoppable ends a stream with the node.
type stoppable struct {
	n *Node
	r io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if s.n.ctx.Err() != nil {
		return 0, ErrStopped
	}
	return s.r.Read(p)
}

// stepCheckpoint tells raft of a checkpoint; whether it takes it is seen in
// the next Ready, before anything else is stepped.
func (n *Node) stepCheckpoint(rec *received, m meta) {
	n.mu.Lock()
	old := n.received
	if old == nil {
		n.received = rec
	}
	n.mu.Unlock()
	if old != nil {
		_ = n.cfg.FS.RemoveAll(rec.dir) // the one before is being installed
		return
	}
	taken := false
	n.drainReady()
	if err := n.rn.Step(&raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: &m.from, To: &m.to, Term: &m.leaderTerm,
		Snapshot: snapshotAt(m.index, m.term, rec.members),
	}); err == nil {
		for n.rn.HasReady() {
			rd := n.rn.Ready()
			taken = taken || !raft.IsEmptySnap(rd.Snapshot)
			n.ready(rd)
		}
	}
	if !taken {
		n.mu.Lock()
		n.received = nil
		n.mu.Unlock()
		_ = n.cfg.FS.RemoveAll(rec.dir)
	}
}

// readCheckpoint reads a stream into dir, durably.
func readCheckpoint(r io.Reader, fsys vfs.FS, dir string, cluster ashlar.ClusterID) (m meta, members *membership, err error) {
	buf := make([]byte, checkpointFrameMax)
	b, err := readFrame(r, buf)
	if err != nil {
		return m, nil, err
	}
	if _, err := header.Decode(b, checkpointHeader(cluster), "checkpoint"); err != nil {
		return m, nil, err
	}
	c := wire.Decoder(b[header.Size:])
	metaFields(c, &m)
	if err := c.Finish(); err != nil {
		return m, nil, err
	}
	if members, err = decodeMembership(m.members); err != nil {
		return m, nil, err
	}
	if m.index == 0 || m.term == 0 || m.leaderTerm < m.term || len(members.voters()) == 0 {
		return m, nil, ashlar.E("read checkpoint", ashlar.Corrupt, "", fmt.Errorf("index %d, term %d of %d", m.index, m.term, m.leaderTerm))
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return m, nil, err
	}
	for range checkpointFilesMax {
		if b, err = readFrame(r, buf); err != nil {
			return m, nil, err
		}
		if len(b) == 0 {
			return m, members, errors.Join(fsys.SyncDir(dir), fsys.SyncDir(path.Dir(dir)))
		}
		if err := readCheckpointFile(r, b, buf, fsys, dir); err != nil {
			return m, nil, err
		}
	}
	return m, nil, ashlar.E("read checkpoint", ashlar.TooBig, "", errors.New("too many files"))
}

func readCheckpointFile(r io.Reader, info, buf []byte, fsys vfs.FS, dir string) error {
	var f fileInfo
	c := wire.Decoder(info)
	fileFields(c, &f)
	if err := c.Finish(); err != nil {
		return err
	}
	if f.name == "" || f.name == "." || f.name == ".." || strings.ContainsAny(f.name, "/\x00") {
		return ashlar.E("read checkpoint", ashlar.Corrupt, "", fmt.Errorf("file named %q", f.name))
	}
	out, err := fsys.Create(path.Join(dir, f.name))
	if err != nil {
		return err
	}
	for off := uint64(0); off < f.size && err == nil; {
		var p []byte
		if p, err = readFrame(r, buf); err != nil {
			break
		}
		if len(p) == 0 || uint64(len(p)) > f.size-off {
			err = ashlar.E("read checkpoint", ashlar.Corrupt, f.name, errors.New("size differs"))
			break
		}
		_, err = out.WriteAt(p, int64(off))
		off += uint64(len(p))
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
