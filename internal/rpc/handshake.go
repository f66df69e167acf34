package rpc

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// transcript is what both proofs cover: everything both sides said. The
// bodies are hashed with their lengths, the preface is a constant.
type transcript struct {
	hello []byte // body of Hello
	reply []byte // body of HelloReply without its proof
}

func (t *transcript) proof(secret []byte, label string) (out [wire.ProofSize]byte) {
	h := hmac.New(sha256.New, deriveKey(secret, labelHandshake))
	for _, b := range [][]byte{[]byte(label), t.hello, t.reply} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	h.Sum(out[:0])
	return out
}

// connect does the connecting side's handshake on c within d.
func connect(c net.Conn, id *Identity, d time.Duration) (*Peer, error) {
	if len(id.Secret) == 0 {
		return nil, ashlar.E("handshake", ashlar.Auth, "", errors.New("no cluster secret is configured"))
	}
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	hello := wire.Hello{
		Cluster: id.Cluster, History: id.History, VersionMin: wire.VersionMin, VersionMax: wire.VersionMax,
		Features: id.Features, Role: id.Role, Node: id.Node, Name: id.Name, Incarnation: id.Incarnation,
	}
	_, _ = rand.Read(hello.Nonce[:]) // never fails
	if err := sendHandshake(c, []byte(wire.Preface), &hello); err != nil {
		return nil, err
	}
	var reply wire.HelloReply
	body, err := receiveHandshake(c, &reply)
	if err != nil {
		return nil, err
	}
	helloBody, err := wire.Encode(nil, &hello)
	if err != nil {
		return nil, err
	}
	t := transcript{hello: helloBody, reply: body[:len(body)-wire.ProofSize]}
	if err := checkReply(id, &hello, &reply, &t); err != nil {
		refuse(c, err)
		return nil, err
	}
	if err := sendHandshake(c, nil, &wire.HelloProof{Proof: t.proof(id.Secret, labelDialing)}); err != nil {
		return nil, err
	}
	return &Peer{
		Cluster: reply.Cluster, History: reply.History, Role: wire.RoleNode, Node: reply.Node, Name: reply.Name,
		Incarnation: reply.Incarnation, Version: reply.Version, Features: reply.Features, Addr: c.RemoteAddr().String(),
	}, c.SetDeadline(time.Time{})
}

func checkReply(id *Identity, hello *wire.Hello, reply *wire.HelloReply, t *transcript) error {
	want := t.proof(id.Secret, labelAccepting)
	if !hmac.Equal(want[:], reply.Proof[:]) {
		return ashlar.E("handshake", ashlar.Auth, "", errors.New("the server does not have this side's cluster secret"))
	}
	if reply.Version < hello.VersionMin || reply.Version > hello.VersionMax {
		return ashlar.E("handshake", ashlar.Version, "", fmt.Errorf("the server chose protocol version %d", reply.Version))
	}
	if !id.Cluster.IsZero() && reply.Cluster != id.Cluster {
		return ashlar.E("handshake", ashlar.WrongCluster, "",
			fmt.Errorf("the server is of cluster %v, this side of %v", reply.Cluster, id.Cluster))
	}
	return checkHistory(id.History, reply.History)
}

func checkHistory(mine, theirs ashlar.History) error {
	if mine != 0 && theirs != 0 && mine != theirs {
		return ashlar.E("handshake", ashlar.WrongCluster, "",
			fmt.Errorf("one side is of history %d of the cluster, the other of %d", mine, theirs))
	}
	return nil
}

// accept does the accepting side's handshake on c within d.
func accept(c net.Conn, id *Identity, d time.Duration) (*Peer, error) {
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	p, err := acceptHello(c, id)
	if err != nil {
		refuse(c, err)
		return nil, err
	}
	return p, c.SetDeadline(time.Time{})
}

func acceptHello(c net.Conn, id *Identity) (*Peer, error) {
	var preface [len(wire.Preface)]byte
	if _, err := io.ReadFull(c, preface[:]); err != nil {
		return nil, err
	}
	if string(preface[:]) != wire.Preface {
		return nil, ashlar.E("handshake", ashlar.Version, "", errors.New("this port speaks the Ashlar protocol and nothing else"))
	}
	var hello wire.Hello
	body, err := receiveHandshake(c, &hello)
	if err != nil {
		return nil, err
	}
	reply := wire.HelloReply{
		Cluster: id.Cluster, History: id.History, Features: id.Features & hello.Features,
		Node: id.Node, Name: id.Name, Incarnation: id.Incarnation,
	}
	if reply.Version, err = checkHello(id, &hello); err != nil {
		return nil, err
	}
	_, _ = rand.Read(reply.Nonce[:]) // never fails
	b, err := wire.Encode(nil, &reply)
	if err != nil {
		return nil, err
	}
	t := transcript{hello: bytes.Clone(body), reply: b[:len(b)-wire.ProofSize]}
	reply.Proof = t.proof(id.Secret, labelAccepting)
	if err := sendHandshake(c, nil, &reply); err != nil {
		return nil, err
	}
	var proof wire.HelloProof
	if _, err := receiveHandshake(c, &proof); err != nil {
		return nil, err
	}
	want := t.proof(id.Secret, labelDialing)
	if !hmac.Equal(want[:], proof.Proof[:]) {
		return nil, ashlar.E("handshake", ashlar.Auth, "", errors.New("the connecting side does not have this cluster's secret"))
	}
	return &Peer{
		Cluster: hello.Cluster, History: hello.History, Role: hello.Role, Node: hello.Node, Name: hello.Name,
		Incarnation: hello.Incarnation, Version: reply.Version, Features: reply.Features, Addr: c.RemoteAddr().String(),
	}, nil
}

func checkHello(id *Identity, hello *wire.Hello) (version uint16, err error) {
	if len(id.Secret) == 0 {
		return 0, ashlar.E("handshake", ashlar.Auth, "", errors.New("the server has no cluster secret"))
	}
	version = min(hello.VersionMax, wire.VersionMax)
	if version < hello.VersionMin || version < wire.VersionMin {
		return 0, ashlar.E("handshake", ashlar.Version, "", fmt.Errorf("the connecting side speaks protocol versions %d to %d, the server %d to %d",
			hello.VersionMin, hello.VersionMax, wire.VersionMin, wire.VersionMax))
	}
	if !hello.Cluster.IsZero() && hello.Cluster != id.Cluster {
		return 0, ashlar.E("handshake", ashlar.WrongCluster, "",
			fmt.Errorf("the connecting side is of cluster %v, the server of %v", hello.Cluster, id.Cluster))
	}
	if hello.Role != wire.RoleClient && hello.Role != wire.RoleNode {
		return 0, ashlar.E("handshake", ashlar.Invalid, "", fmt.Errorf("unknown role %d", hello.Role))
	}
	return version, checkHistory(id.History, hello.History)
}

// refuse tells the other side why, as well as it goes.
func refuse(c net.Conn, err error) {
	if kindOf(err) == ashlar.Other { // the connection failed: nobody listens
		return
	}
	f, ferr := newFrame(header{flags: wire.FlagResponse | wire.FlagError}, errorMessage(err))
	if ferr != nil {
		return
	}
	_, _ = c.Write(f.head) // the connection is closed next either way
	f.recycle()
}

func sendHandshake(c net.Conn, before []byte, m wire.Message) error {
	f, err := newFrame(header{}, m)
	if err != nil {
		return err
	}
	defer f.recycle()
	_, err = c.Write(append(before[:len(before):len(before)], f.head...))
	return err
}

// receiveHandshake reads exactly one frame into m and returns its body.
func receiveHandshake(c io.Reader, m wire.Message) ([]byte, error) {
	var hb [wire.HeaderSize]byte
	if _, err := io.ReadFull(c, hb[:]); err != nil {
		return nil, err
	}
	var h header
	if err := h.parse(hb[:]); err != nil || h.payload != 0 {
		return nil, notAshlar(errors.Join(err))
	}
	failed := h.flags&wire.FlagError != 0
	refusal := new(wire.ErrorMessage)
	switch {
	case failed && h.kind == refusal.Kind() && h.body <= 8*handshakeMax:
	case failed || h.kind != m.Kind() || h.body > handshakeMax:
		return nil, notAshlar(nil)
	}
	body := make([]byte, h.body)
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, err
	}
	if failed {
		if err := wire.Decode(body, refusal); err != nil {
			return nil, notAshlar(err)
		}
		return nil, &refusedError{remoteError(refusal)}
	}
	if err := wire.Decode(body, m); err != nil {
		return nil, notAshlar(err)
	}
	return body, nil
}

func notAshlar(err error) error {
	if err == nil {
		err = errors.New("the other side does not speak the Ashlar protocol")
	}
	return ashlar.E("handshake", ashlar.Version, "", err)
}

// refusedError is a refusal by the other side, which needs no telling back.
type refusedError struct{ error }

func (r *refusedError) Unwrap() error { return r.error }
