package http1

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"

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

// appendProxyHeader writes the PROXY header, of version 1 or 2, that tells of a
// connection from a client. Where addresses are of both kinds, IPv4 is written within
// IPv6. Without addresses the header says that there are none to tell.
func appendProxyHeader(out []byte, version int, client, local netip.AddrPort) []byte {
	from, to := client.Addr().Unmap(), local.Addr().Unmap()
	if from.Is4() != to.Is4() {
		from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	known := client.IsValid() && local.IsValid()
	if version == 1 {
		return appendProxyLine(out, known, from, to, client.Port(), local.Port())
	}
	out = append(out, proxyproto.SIGV2...)
	if !known {
		return append(out, byte(proxyproto.LOCAL), byte(proxyproto.UNSPEC), 0, 0)
	}
	family := proxyproto.TCPv6
	if from.Is4() {
		family = proxyproto.TCPv4
	}
	out = append(out, byte(proxyproto.PROXY), byte(family))
	out = binary.BigEndian.AppendUint16(out, uint16(2*from.BitLen()/8+4))
	out = append(append(out, from.AsSlice()...), to.AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, client.Port())
	return binary.BigEndian.AppendUint16(out, local.Port())
}

func appendProxyLine(out []byte, known bool, from, to netip.Addr, fromPort, toPort uint16) []byte {
	switch {
	case !known:
		return append(out, "PROXY UNKNOWN\r\n"...)
	case from.Is4():
		out = append(out, "PROXY TCP4 "...)
	default:
		out = append(out, "PROXY TCP6 "...)
	}
	out = append(from.AppendTo(out), ' ')
	out = append(to.AppendTo(out), ' ')
	out = append(strconv.AppendUint(out, uint64(fromPort), 10), ' ')
	return append(strconv.AppendUint(out, uint64(toPort), 10), "\r\n"...)
}
