package http1

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

const (
	// maxProxyLine bounds a header of the PROXY protocol's first version, which is a
	// line.
	maxProxyLine = 107
	// proxyPrefix is what a header of the second begins with, up to its length, in
	// bytes.
	proxyPrefix = 16
	// maxProxyRest bounds what comes then: addresses, and what senders tell besides,
	// of which a client's certificate is the largest.
	maxProxyRest = 4 << 10
)

var errPreface = errors.New("the connection does not begin with a PROXY header")

// introduce reads the PROXY header that the connection must begin with, and takes the
// client's address from it. It says whether the connection may go on. What comes
// behind the header stays in the buffer, as if it had been read as a request.
func (s *session) introduce() bool {
	s.watch.set(heading, s.server.now.Load()+s.server.config.Header.Milliseconds())
	for {
		n, err := prefaceLength(s.in.bytes())
		if n > 0 {
			err = s.adopt(s.in.bytes()[:n])
			s.in.use(n)
		}
		if err != nil {
			break
		}
		if n > 0 {
			return s.enter()
		}
		if s.in.fill() != nil {
			if s.in.len() == 0 && !s.watch.hasExpired() {
				return false // it only looked whether somebody listens
			}
			break
		}
	}
	s.server.rejected(RejectedPreface, s.addr)
	return false
}

// enter counts the connection as the client's. It says whether it may go on.
func (s *session) enter() bool {
	if s.server.enter(s) {
		return true
	}
	s.server.rejected(RejectedClient, s.addr)
	return false
}

// prefaceLength is that of the header at the beginning of b; 0 if it is not all there.
func prefaceLength(b []byte) (int, error) {
	switch {
	case len(b) == 0:
		return 0, nil
	case bytes.HasPrefix(b, proxyproto.SIGV1[:min(len(b), len(proxyproto.SIGV1))]):
		end := bytes.IndexByte(b[:min(len(b), maxProxyLine)], '\n')
		if end < 0 && len(b) >= maxProxyLine {
			return 0, errPreface
		}
		return end + 1, nil
	case !bytes.HasPrefix(b, proxyproto.SIGV2[:min(len(b), len(proxyproto.SIGV2))]):
		return 0, errPreface
	case len(b) < proxyPrefix:
		return 0, nil
	}
	rest := int(binary.BigEndian.Uint16(b[proxyPrefix-2:]))
	switch {
	case rest > maxProxyRest:
		return 0, errPreface
	case len(b) < proxyPrefix+rest:
		return 0, nil
	}
	return proxyPrefix + rest, nil
}

// adopt makes the client that a PROXY header names the session's. One that names none,
// as for the sender's own checks, leaves the peer.
func (s *session) adopt(header []byte) error {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), maxProxyLine+1))
	if err != nil {
		return err
	}
	if from, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() {
		s.setClient(addrOf(from))
		s.told = h
	}
	return nil
}

// addrOf is the address of a TCP peer; IPv4 within IPv6 is IPv4.
func addrOf(addr net.Addr) netip.Addr {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(tcp.IP)
		return ip.Unmap()
	}
	return netip.Addr{}
}

// preface is the PROXY header that tells a backend of the client; nil if it is not to
// be told.
func (s *session) preface(to *Backend) []byte {
	if to.config.Proxy == 0 {
		return nil
	}
	from, at := s.conn.RemoteAddr(), s.conn.LocalAddr()
	if s.told != nil {
		from, at = s.told.SourceAddr, s.told.DestinationAddr
	}
	header, err := proxyproto.HeaderProxyFromAddrs(to.config.Proxy, from, at).Format()
	if err != nil { // no addresses of TCP make it fail
		panic("http1: " + err.Error())
	}
	return header
}
