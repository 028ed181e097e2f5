package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"strings"
)

const maxRequestID = 128

// setRequestHeader makes header, a copy of in's without what is meant for one
// hop, what a backend is to see. What a client claims about itself and its way
// here is dropped: no peer is trusted to say so. X-Real-Ip is dropped and not set,
// since it could only repeat X-Forwarded-For or contradict it.
func setRequestHeader(header http.Header, in *http.Request) {
	for name := range header {
		if forged(name) {
			delete(header, name)
		}
	}
	if ip, _, err := net.SplitHostPort(in.RemoteAddr); err == nil {
		header.Set("X-Forwarded-For", ip)
	}
	header.Set("X-Forwarded-Proto", protocolOf(in))
	if in.Host != "" {
		header.Set("X-Forwarded-Host", in.Host)
	}
	// From in, as the Connection field may have named it.
	if ids := in.Header["X-Request-Id"]; len(ids) == 1 && saneID(ids[0]) {
		header.Set("X-Request-Id", ids[0])
	} else {
		header.Set("X-Request-Id", newID())
	}
}

func protocolOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// forged says whether a client's header could pass for what a proxy says, or, with
// underscores, for a header that a proxy removes or sets: CGI and its heirs make
// no difference between X_Forwarded_For and X-Forwarded-For. Proxy would
// become HTTP_PROXY there.
func forged(name string) bool {
	if alias := strings.ReplaceAll(name, "_", "-"); alias != name {
		switch name = textproto.CanonicalMIMEHeaderKey(alias); name {
		case "Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "X-Request-Id":
			return true
		}
	}
	switch name {
	case "Forwarded", "Proxy", "X-Real-Ip", "Http2-Settings":
		return true
	default:
		return strings.HasPrefix(name, "X-Forwarded")
	}
}

// saneID says whether a client's request id may be kept: short, and printable ASCII.
func saneID(id string) bool {
	return id != "" && len(id) <= maxRequestID &&
		!strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

func newID() string {
	id := make([]byte, 0, 16)
	id = binary.BigEndian.AppendUint64(id, rand.Uint64())
	id = binary.BigEndian.AppendUint64(id, rand.Uint64())
	return hex.EncodeToString(id)
}

// wantsWebSocket says whether a request asks to go on as a WebSocket, the only
// protocol that may take over a connection. One with a body may not: where the
// body ends and the protocol begins is something two parties can see differently.
func wantsWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return r.Method == http.MethodGet && !hasBody(r) && len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket")
}

// rawPath gives the path of a request exactly as the client wrote it.
func rawPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if _, rest, ok := strings.Cut(path, "://"); ok && r.URL.Scheme != "" {
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	return path
}
