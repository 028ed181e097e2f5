package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// maxFields bounds the header lines of a request and of an answer.
	maxFields = 1000
	// maxInterim bounds the interim answers that are relayed for one request.
	maxInterim = 10
	// maxHost bounds a host name, in bytes.
	maxHost = 255
)

// malformed says whether a request means nothing, or could mean something else to
// a backend, although the server let it pass.
func malformed(r *http.Request) bool {
	switch {
	case r.URL.Scheme != "" && r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return true
	case r.URL.Scheme != "" && (r.URL.Host == "" || r.URL.User != nil):
		return true
	case !strings.HasPrefix(r.URL.Path, "/") && (r.URL.Path != "" || r.URL.Host == ""):
		return true
	case strings.Contains(r.RequestURI, "#"):
		return true
	case r.Host == "":
		return r.ProtoAtLeast(1, 1)
	default:
		return !validHost(r.Host)
	}
}

// validHost says whether host is a host name or an address, and maybe a port: less
// than RFC 3986 allows, but all that names a server, and the same to everyone.
func validHost(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		address, port, closed := strings.Cut(inner, "]")
		addr, err := netip.ParseAddr(address)
		return closed && err == nil && addr.Is6() && addr.Zone() == "" &&
			(port == "" || port[0] == ':' && validPort(port[1:]))
	}
	name, port, _ := strings.Cut(host, ":")
	return validName(name) && validPort(port)
}

func validPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil
}

func validName(name string) bool {
	if name == "" || len(name) > maxHost || name[0] == '.' || strings.Contains(name, "..") {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !letter && (r < '0' || r > '9') && !strings.ContainsRune("-._~", r)
	})
}

// fields counts the lines of a header.
func fields(header http.Header) int {
	count := 0
	for _, values := range header {
		count += len(values)
	}
	return count
}

// checkAnswer says why an answer to req cannot be passed on, although it could be
// read. Its errors wrap errBadAnswer.
func checkAnswer(res *http.Response, req *http.Request) error {
	switch {
	case res.StatusCode < 100:
		return fmt.Errorf("%w: it has the status %q", errBadAnswer, res.Status)
	case res.StatusCode == http.StatusSwitchingProtocols && !wantedUpgrade(res, req):
		return fmt.Errorf("%w: it switches to a protocol that was not asked for", errBadAnswer)
	case fields(res.Header) > maxFields:
		return fmt.Errorf("%w: it has more than %d header fields", errBadAnswer, maxFields)
	}
	for name := range res.Header {
		// One that others read without the space: Content-Length, perhaps.
		if strings.Contains(name, " ") {
			return fmt.Errorf("%w: a space is in the header field name %q", errBadAnswer, name)
		}
	}
	return nil
}

func wantedUpgrade(res *http.Response, req *http.Request) bool {
	return req.Header.Get("Upgrade") != "" && strings.EqualFold(res.Header.Get("Upgrade"), "websocket")
}

// headerOnly says whether a field has no business in a trailer: framing, routing and
// what changes the meaning of the answer (RFC 9110, section 6.5.1).
func headerOnly(name string) bool {
	switch name {
	case "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "Host",
		"Location", "Set-Cookie", "Trailer", "Transfer-Encoding":
		return true
	default:
		return false
	}
}
