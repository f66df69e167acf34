package rpc

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Labels under which keys are derived from the cluster secret and proofs are
// made; each use has its own.
const (
	labelHandshake = "ashlar handshake key 1"
	labelTicket    = "ashlar ticket key 1"
	labelAccepting = "ashlar accepting side"
	labelDialing   = "ashlar connecting side"
)

func deriveKey(secret []byte, label string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(label))
	return h.Sum(nil)
}

// SignTicket sets t.MAC under the key derived from the cluster secret and
// returns the encoded ticket.
func SignTicket(secret []byte, t *wire.Ticket) []byte {
	t.MAC = ticketMAC(secret, t)
	b, err := wire.Encode(nil, t)
	if err != nil {
		panic("rpc: a ticket of fixed size does not encode: " + err.Error())
	}
	return b
}

// OpenTicket decodes a ticket and checks its MAC, not its expiry. A ticket
// that is malformed or not signed with secret is an Auth error.
func OpenTicket(secret, b []byte) (*wire.Ticket, error) {
	t := new(wire.Ticket)
	if err := wire.Decode(b, t); err != nil {
		return nil, ashlar.E("ticket", ashlar.Auth, "", err)
	}
	want := ticketMAC(secret, t)
	if !hmac.Equal(want[:], t.MAC[:]) {
		return nil, ashlar.E("ticket", ashlar.Auth, "", errors.New("wrong signature"))
	}
	return t, nil
}

func ticketMAC(secret []byte, t *wire.Ticket) (mac [wire.ProofSize]byte) {
	c := wire.Encoder(nil)
	t.Signed(c)
	h := hmac.New(sha256.New, deriveKey(secret, labelTicket))
	h.Write(c.Bytes())
	h.Sum(mac[:0])
	return mac
}
