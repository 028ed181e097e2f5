package http1

import (
	"bytes"
	"net/netip"
)

// maxHost bounds a host name, in bytes.
const maxHost = 255

// ValidHost says whether host is a host name or an address, and maybe a port: less
// than RFC 3986 allows, but all that names a server, and the same to everyone.
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
	if len(name) == 0 || len(name) > maxHost || name[0] == '.' {
		return false
	}
	for i, c := range name {
		if !isName[c] || c == '.' && i > 0 && name[i-1] == '.' {
			return false
		}
	}
	return true
}

var isName = table("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
