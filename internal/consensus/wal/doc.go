// Package wal is the consensus log on disk: entries, hard state and marks in
// preallocated segments. It knows what has to be durable and in what order,
// not what it means: elections, commitment and snapshots are the caller's.
//
// # Segments
//
// A log is a directory of segments, log-<sequence in 16 hex digits>.wal. Each
// is written once from front to back, in frames that begin on a 512-byte
// boundary, so that no sector that is durable is written again:
//
//	  0  header      64 bytes, package header, magic "ASHLRLOG"
//	 64  sequence    u64, the same as in the name
//	 72  prev end    u64, where the previous segment ends
//	 80  crc         u32, CRC-32C of bytes 64-79
//	512  frames
//
// A frame is what one write carries:
//
//	 0  magic    u32, 0x4c525341
//	 4  crc      u32, CRC-32C of bytes 8 to the end of the payload
//	 8  length   u32, of the payload
//	12  reserved u32, zero
//	16  sequence u64, of the segment: frames of a recycled file's former life
//	             do not count
//	24  synced   u64, below this offset the segment was durable when the frame
//	             was written
//	32  payload  records, one after the other
//	    zeros    up to the next boundary
//
// A record is a byte that tells its kind, then:
//
//	1  entry    index, term, type, length: uvarint each; data
//	2  hard     term, vote, commit: uvarint each
//	3  mark     index, term, length: uvarint each; data: the log begins above
//	            index; data is the membership as of index
//	4  pending  as mark: the store is about to be replaced by a checkpoint as
//	            of index
//
// An entry removes all entries at and above its index. A segment begins by
// repeating the hard state and the marks, so that older ones can be removed.
//
// # What survives a crash
//
// Everything Append returned for, of a process and of the machine. The log
// ends before the first frame that is not whole. If a later frame says that
// this place was durable it is damage, not a torn tail, and Open refuses. An
// opened log goes on in a new segment, so what was torn is never revived.
//
// Lock order: Log is used by one goroutine; the one that prepares segments
// ahead shares only a channel with it.
package wal
