package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// memberlist makes room for what a state exchange says is to come, before it comes:
// 20 bytes are worth 112 MB. Where gossip is encrypted only members can say so.
// Where it is not, the beginning of each connection is looked at first.

// The first bytes of a gossip connection, as memberlist defines them.
const (
	gossipPing     = 0
	gossipExchange = 6
	gossipSecret   = 10
	gossipLabelled = 244

	maxGossipHead  = 4096 // bytes that may come before the first member
	maxGossipNodes = 8192 // members in one exchange
)

var errNotGossip = errors.New("this is nothing that a member sends")

// screen reads the beginning of a connection and returns what is to be read instead
// of it, or an error if no member would begin so.
func screen(conn io.Reader) (io.Reader, error) {
	var seen bytes.Buffer
	if err := checkHead(io.TeeReader(io.LimitReader(conn, maxGossipHead), &seen)); err != nil {
		return nil, err
	}
	return io.MultiReader(&seen, conn), nil
}

func checkHead(head io.Reader) error {
	var start [2]byte
	if _, err := io.ReadFull(head, start[:]); err != nil {
		return err
	}
	if start[0] != gossipLabelled {
		return errNotGossip
	}
	label := make([]byte, start[1])
	if _, err := io.ReadFull(head, label); err != nil || string(label) != gossipLabel {
		return errNotGossip
	}
	if _, err := io.ReadFull(head, start[:1]); err != nil {
		return err
	}
	switch start[0] {
	case gossipPing, gossipSecret:
		return nil
	case gossipExchange:
		return checkExchange(head)
	}
	return errNotGossip
}

func checkExchange(head io.Reader) error {
	var says struct{ Nodes, UserStateLen int }
	if err := codec.NewDecoder(head, &codec.MsgpackHandle{}).Decode(&says); err != nil {
		return fmt.Errorf("%w: %w", errNotGossip, err)
	}
	if says.Nodes > maxGossipNodes || says.UserStateLen > 0 {
		return fmt.Errorf("%w: an exchange of %d members and %d bytes", errNotGossip, says.Nodes, says.UserStateLen)
	}
	return nil
}
