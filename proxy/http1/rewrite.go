package http1

import (
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// maxRequestID bounds a request id that a client brings, in bytes.
const maxRequestID = 128

// appendRequest writes the head that goes to a backend. What is meant for one hop is
// left out. What a client claims about itself and its way here is left out, too,
// unless it comes from a trusted network.
func (x *Exchange) appendRequest(out []byte) []byte {
	r, b := &x.request, x.head
	out = append(out, r.method.of(b)...)
	out = append(out, ' ')
	out = x.appendTarget(out)
	out = append(out, " HTTP/1.1\r\n"...)
	if value := r.host.of(b); len(value) > 0 {
		out = appendField(out, "Host", value)
	} else {
		out = append(out, "Host: "...)
		out = append(out, x.session.conn.LocalAddr().String()...)
		out = append(out, "\r\n"...)
	}
	for _, f := range r.fields {
		if x.passes(f) {
			out = appendLine(out, f.name.of(b), f.value.of(b))
		}
	}
	out = x.appendForwarded(out)
	switch {
	case x.upgrading:
		return append(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	case r.chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case r.lengths > 0:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, r.length, 10)
		out = append(out, "\r\n"...)
	}
	if r.trailers {
		out = append(out, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	return append(out, "\r\n"...)
}

// appendTarget writes the target in origin form (RFC 9112, section 3.2.1).
func (x *Exchange) appendTarget(out []byte) []byte {
	r := &x.request
	rest := r.rest.of(x.head)
	switch {
	case r.asterisk:
		return append(out, '*')
	case len(rest) == 0 || rest[0] == '?':
		out = append(out, '/')
	}
	return append(out, rest...)
}

// passes says whether a client's field goes to the backend as it is.
func (x *Exchange) passes(f field) bool {
	r := &x.request
	switch fates[f.is] {
	case endToEnd:
		written := f.is == expect && r.old || f.is == maxForwards && r.bounded
		return !written && !r.named.has(f.name.of(x.head))
	case claim:
		return x.session.trusted
	}
	return false
}

// appendForwarded writes what the proxy itself says of the request.
func (x *Exchange) appendForwarded(out []byte) []byte {
	r, b := &x.request, x.head
	out = append(out, "X-Forwarded-For: "...)
	if x.session.trusted {
		out = x.appendChain(out)
	}
	out = append(out, x.session.client...)
	out = append(out, "\r\nX-Forwarded-Proto: "...)
	out = append(out, x.kept(forwardedProto, x.session.scheme)...)
	out = append(out, "\r\n"...)
	if name := x.kept(forwardedHost, nil); len(name) > 0 {
		out = appendField(out, "X-Forwarded-Host", name)
	} else if !r.host.empty() {
		out = append(out, "X-Forwarded-Host: "...)
		out = append(appendHost(out, r.host.of(b)), "\r\n"...)
	}
	out = appendField(out, "X-Request-Id", x.requestID())
	if r.bounded {
		out = append(out, "Max-Forwards: "...)
		out = append(strconv.AppendInt(out, r.forwards-1, 10), "\r\n"...)
	}
	return x.appendVia(out)
}

// appendVia writes which way the request came (RFC 9110, section 7.6.3), behind what
// others have written.
func (x *Exchange) appendVia(out []byte) []byte {
	if x.via == "" {
		return out
	}
	version := "Via: 1.1 "
	if x.request.old {
		version = "Via: 1.0 "
	}
	out = append(append(out, version...), x.via...)
	return append(out, "\r\n"...)
}

// appendChain writes the hops that a trusted client has noted.
func (x *Exchange) appendChain(out []byte) []byte {
	for _, f := range x.request.fields {
		if f.is == forwardedFor && !f.value.empty() {
			out = append(out, f.value.of(x.head)...)
			out = append(out, ", "...)
		}
	}
	return out
}

// kept is the first value that a trusted client gives, or else ours.
func (x *Exchange) kept(is known, ours []byte) []byte {
	if x.session.trusted {
		for _, f := range x.request.fields {
			if f.is == is && !f.value.empty() {
				return f.value.of(x.head)
			}
		}
	}
	return ours
}

// requestID is the client's, if it is a sane one, or else a new one.
func (x *Exchange) requestID() []byte {
	if x.idLength > 0 {
		return x.id[:x.idLength]
	}
	count := 0
	for _, f := range x.request.fields {
		if f.is == requestID {
			count++
			x.idLength = copy(x.id[:], f.value.of(x.head))
			if len(f.value.of(x.head)) > maxRequestID || !printable(x.id[:x.idLength]) {
				count = 2
			}
		}
	}
	if count != 1 || x.idLength == 0 {
		x.idLength = newID(x.id[:])
	}
	return x.id[:x.idLength]
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// newID writes 32 hexadecimal digits.
func newID(id []byte) int {
	var random [16]byte
	binary.LittleEndian.PutUint64(random[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(random[8:], rand.Uint64())
	const digits = "0123456789abcdef"
	for i, c := range random {
		id[2*i], id[2*i+1] = digits[c>>4], digits[c&15]
	}
	return 2 * len(random)
}

func appendField(out []byte, name string, value []byte) []byte {
	out = append(out, name...)
	out = append(out, ": "...)
	out = append(out, value...)
	return append(out, "\r\n"...)
}

func appendLine(out, name, value []byte) []byte {
	out = append(out, name...)
	out = append(out, ": "...)
	out = append(out, value...)
	return append(out, "\r\n"...)
}

// appendResponse writes the head of the answer that goes to the client, with a body
// framed as said.
func (x *Exchange) appendResponse(out []byte, r *Response, b []byte, body framing) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(r.status), 10)
	out = append(out, ' ')
	out = append(out, r.reason.of(b)...)
	out = append(out, "\r\n"...)
	dated, demands := r.status < 200, r.status == http.StatusUpgradeRequired
	for _, f := range r.fields {
		if f.is.hop() && !(f.is == upgrade && demands) || f.is == trailer && body != byChunks || r.named.has(f.name.of(b)) {
			continue
		}
		dated = dated || f.is == date
		out = appendLine(out, f.name.of(b), f.value.of(b))
	}
	if !dated { // RFC 9110, section 6.6.1
		out = appendField(out, "Date", *x.session.server.date.Load())
	}
	if r.status >= 200 || r.status == 101 {
		out = append(out, x.fields...)
	}
	return x.appendFraming(out, r, body)
}

// appendFraming ends the head.
func (x *Exchange) appendFraming(out []byte, r *Response, body framing) []byte {
	switch {
	case r.status == 101:
		return append(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	case r.status < 200 || r.status == 204:
		// No length, and the connection goes on by itself.
	case body == byChunks:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case r.lengths > 0 && r.checkFraming() == nil && !r.chunked:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, r.length, 10)
		out = append(out, "\r\n"...)
	}
	if r.status == http.StatusUpgradeRequired && r.offers { // RFC 9110, section 15.5.22
		out = append(out, "Connection: Upgrade\r\n"...)
	}
	if r.status >= 200 {
		out = x.appendConnection(out)
	}
	return append(out, "\r\n"...)
}

// appendConnection says what becomes of the client's connection, where that is not
// the rule of its version (RFC 9112, section 9.3).
func (x *Exchange) appendConnection(out []byte) []byte {
	switch {
	case x.closing && !x.request.old:
		return append(out, "Connection: close\r\n"...)
	case !x.closing && x.request.old:
		return append(out, "Connection: keep-alive\r\n"...)
	}
	return out
}
