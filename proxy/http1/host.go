package http1

import (
	"bytes"
	"net/netip"
)

// maxHost bounds a host name, in bytes.
const maxHost = 255

// ValidHost says whether host is a host name or an address, and maybe a port (RFC 3986,
// sections 3.2.2 and 3.2.3). A name may be one that no DNS knows, such as a socket's.
func ValidHost(host []byte) bool {
	if len(host) > 0 && host[0] == '[' {
		return validLiteral(host[1:])
	}
	name, port, _ := bytes.Cut(host, []byte(":"))
	return validName(name) && validPort(port)
}

func validLiteral(b []byte) bool {
	address, port, closed := bytes.Cut(b, []byte("]"))
	addr, err := netip.ParseAddr(string(address))
	return closed && err == nil && addr.Is6() && addr.Zone() == "" &&
		(len(port) == 0 || port[0] == ':' && validPort(port[1:]))
}

func validPort(port []byte) bool {
	n, ok := decimal(port)
	return len(port) == 0 || ok && n < 1<<16
}

func validName(name []byte) bool {
	for _, c := range name {
		if !isName[c] {
			return false
		}
	}
	return len(name) > 0 && len(name) <= maxHost && escaped(name)
}

var isName = table("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%")

// appendHost writes a host as a value that some take for a list: a comma within the host
// must not make two of it.
func appendHost(out, host []byte) []byte {
	for i := bytes.IndexByte(host, ','); i >= 0; i = bytes.IndexByte(host, ',') {
		out = append(append(out, host[:i]...), "%2C"...)
		host = host[i+1:]
	}
	return append(out, host...)
}
