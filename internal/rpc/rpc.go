// Package rpc carries messages of package wire between processes: one TCP
// port per node, connections authenticated by the cluster secret in both
// directions, requests pipelined and answered in any order, with deadlines,
// bounded queues and bulk data that is neither parsed nor copied. It knows no
// message's meaning and no placement, session or leader; who may ask what is
// decided by handlers, from Request.Peer and Request.Conn.
//
// docs/protocol/framing.md describes what is on the wire.
//
// # Who owns which memory
//
// A request and its payload are read by Call until it returns, never after,
// whatever way it ends: a frame that is being written when the caller gives
// up is taken over into private memory first. A reply and the buffer that its
// PayloadBuffer returned are written by Call until it returns, never after.
// On the serving side the payload of a request lives in a pooled buffer that
// is valid until the handler has returned; the payload of a reply must stay
// unchanged until it is sent, which Request.Buffer and Request.OnSent help
// with. A call to a server in the same process has the same rules: bodies
// pass through the codec and payloads are copied, so that nothing is shared.
//
// # Lock order
//
//	Client.mu
//	    target.mu
//	        clientConn.mu
//	            writer.mu
//	Server.mu
//	    ServerConn.mu
//	        writer.mu
//
// Nothing here survives a crash.
package rpc

import (
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Limits. Each is per connection unless it says otherwise.
const (
	// InflightMax is the most requests that a server works on, and the most
	// calls that a client has waiting. A server at it stops reading; a client
	// at it makes callers wait.
	InflightMax = 1024
	// PayloadBytesMax is the most request payload that a server holds, and
	// the most reply payload out of Request.Buffer.
	PayloadBytesMax = 64 << 20
	// SendQueueMax is the most bytes that Send leaves queued.
	SendQueueMax = 64 << 20
	// ConnectionsMax is the most connections of a Server.
	ConnectionsMax = 8192
	// handshakeMax is the largest body of a handshake message.
	handshakeMax = 4096
	// HandshakeTimeout is how long a handshake may take.
	HandshakeTimeout = 5 * time.Second
	// DialTimeout is how long a connection attempt may take.
	DialTimeout = time.Second
	// backoffMin and the two maxima bound how long a failed address is not
	// dialed again: one that refuses is up and merely not serving yet.
	backoffMin     = 50 * time.Millisecond
	backoffRefused = 200 * time.Millisecond
	backoffSilent  = time.Second
	// backoffPause is how long a call to an address in backoff is held before
	// it fails, so that a caller without a pause of its own does not spin.
	backoffPause = 10 * time.Millisecond
	// aliveEvery is how often a server with work in hand says so, and
	// silentMax how long a client with calls waiting puts up with nothing.
	aliveEvery = 2 * time.Second
	silentMax  = 6 * time.Second
	// stalledMax is how long a server waits for a peer to take any byte of
	// what is queued for it.
	stalledMax = 60 * time.Second
	// inlinePayload is the largest payload that is copied behind its body
	// rather than sent from where it is.
	inlinePayload = 4 << 10
	// readBuffer is the size of a connection's read buffer.
	readBuffer = 64 << 10
	// logEvery is the shortest time between two log lines about refused
	// connections.
	logEvery = 5 * time.Second
)

// kindAlive is the kind of the empty frame, with FlagResponse and id 0, by
// which a server tells that it is working.
const kindAlive wire.Kind = 0

// Identity is what a process says of itself in handshakes. Secret is the
// cluster's shared secret and must not be empty. Cluster may be zero for a
// client that knows only addresses, History zero for whoever does not know
// it yet.
type Identity struct {
	Cluster     ashlar.ClusterID
	History     ashlar.History
	Role        wire.Role
	Node        ashlar.NodeID
	Name        string
	Incarnation ashlar.Incarnation
	Secret      []byte
	Features    uint64
}

// Peer is what the other side said of itself in the handshake. It knows the
// cluster secret; beyond that it is taken at its word. Addr is where the
// connection comes from.
type Peer struct {
	Cluster     ashlar.ClusterID
	History     ashlar.History
	Role        wire.Role
	Node        ashlar.NodeID
	Name        string
	Incarnation ashlar.Incarnation
	Version     uint16
	Features    uint64 // that both sides have
	Addr        string
	Local       bool // in this process
}

// class separates traffic into connections, so that a heartbeat does not wait
// behind bulk data. It follows from the conversation that a kind belongs to.
type class uint8

const (
	classControl  class = iota
	classData           // clients with chunkservers; OnConnect applies
	classReplica        // chunkservers among themselves
	classRaft           // consensus messages
	classTransfer       // checkpoints
	classes
)

// classWidth is how many connections each class has to one address.
var classWidth = [classes]int{classControl: 1, classData: 2, classReplica: 2, classRaft: 1, classTransfer: 1}

func classOf(k wire.Kind) class {
	switch {
	case k >= 80 && k < 96:
		return classData
	case k >= 96 && k < 128:
		return classReplica
	case k == 160:
		return classRaft
	case k > 160 && k < 176:
		return classTransfer
	}
	return classControl
}
