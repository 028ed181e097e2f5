package cluster

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
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

// modernTransport refuses the first version of memberlist's encryption. No node uses
// it, but memberlist takes it, and the version is not part of what it authenticates:
// whoever records a packet and changes its version has memberlist cut off as many
// bytes of its content as the last one says, more than there are in many an
// acknowledgement, which ends the process.
type modernTransport struct {
	memberlist.NodeAwareTransport
	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{} // nobody reads packets and streams any more
	closed  chan struct{} // nothing comes from below any more
	once    sync.Once
	running sync.WaitGroup
}

func newModernTransport(below memberlist.NodeAwareTransport) *modernTransport {
	t := &modernTransport{
		NodeAwareTransport: below,
		packets:            make(chan *memberlist.Packet),
		streams:            make(chan net.Conn),
		closing:            make(chan struct{}),
		closed:             make(chan struct{}),
	}
	t.running.Go(t.loop)
	return t
}

func (t *modernTransport) loop() {
	for {
		select {
		case packet := <-t.NodeAwareTransport.PacketCh():
			if len(packet.Buf) > packetVersionAt && packet.Buf[packetVersionAt] == 0 {
				continue
			}
			select {
			case t.packets <- packet:
			case <-t.closing:
			}
		case conn := <-t.NodeAwareTransport.StreamCh():
			select {
			case t.streams <- &modernConn{Conn: conn, versionAt: streamVersionAt}:
			case <-t.closing:
				conn.Close()
			}
		case <-t.closed:
			return
		}
	}
}

// PacketCh implements memberlist.Transport.
func (t *modernTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *modernTransport) StreamCh() <-chan net.Conn { return t.streams }

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *modernTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := t.NodeAwareTransport.DialAddressTimeout(to, timeout)
	if err != nil {
		return nil, err
	}
	return &modernConn{Conn: conn, versionAt: answerVersionAt}, nil
}

// Shutdown implements memberlist.Transport. What comes from below is taken until the
// listeners have ended, because they wait for that.
func (t *modernTransport) Shutdown() (err error) {
	t.once.Do(func() {
		close(t.closing)
		err = t.NodeAwareTransport.Shutdown()
		close(t.closed)
		t.running.Wait()
	})
	return err
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
