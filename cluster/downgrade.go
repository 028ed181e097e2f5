package cluster

import (
	"errors"
	"net"
)

// Where memberlist writes which version of its encryption follows, in what begins
// with the label and, as answers do, without it.
const (
	labelSize       = 2 + len(gossipLabel)
	packetVersionAt = labelSize
	streamVersionAt = labelSize + 5 // after the type and the size
	answerVersionAt = 5
)

var errOldEncryption = errors.New("the peer uses the first version of gossip's encryption, which no node does")

// Gossip's first encryption is refused. No node uses it, but memberlist takes it, and
// the version is not part of what it authenticates: whoever records a packet and
// changes its version has memberlist cut off as many bytes of its content as the last
// one says, more than there are in many an acknowledgement, which ends the process.

// oldPacket says whether an encrypted packet is of the first version.
func oldPacket(packet []byte) bool {
	return len(packet) > packetVersionAt && packet[packetVersionAt] == 0
}

// modernConn fails when the byte that says the version is read and is 0.
type modernConn struct {
	net.Conn
	versionAt int // how many bytes come before it
}

// Read implements net.Conn.
func (c *modernConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.versionAt >= 0 && c.versionAt < n && b[c.versionAt] == 0 {
		return 0, errOldEncryption
	}
	c.versionAt -= n
	return n, err
}
