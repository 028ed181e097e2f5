package http1

import (
	"net/http"
	"strconv"
	"time"
)

const plainText = "text/plain; charset=utf-8"

// methods are those that some backend may take.
const methods = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n"

// Refuse answers with a short text instead of a backend's answer. The connection
// goes on if the next request on it may fare better and can be found.
func (x *Exchange) Refuse(status int, text string) {
	if text != "" {
		text += "\n"
	}
	x.reply(status, plainText, text)
}

// Reply answers a request of which this server is the last.
func (x *Exchange) Reply() {
	if string(x.Method()) == http.MethodTrace {
		x.reply(http.StatusOK, "message/http", x.trace())
		return
	}
	x.reply(http.StatusOK, plainText, "")
}

// trace is the head as it came, without what is secret (RFC 9110, section 9.3.8).
func (x *Exchange) trace() string {
	r, b := &x.request, x.head
	version := " HTTP/1.1\r\n"
	if r.old {
		version = " HTTP/1.0\r\n"
	}
	out := append(append(append([]byte{}, r.method.of(b)...), ' '), r.target.of(b)...)
	out = append(out, version...)
	for _, f := range r.fields {
		if f.is != authorization && f.is != proxyAuthorization && f.is != cookie {
			out = appendLine(out, f.name.of(b), f.value.of(b))
		}
	}
	return string(append(out, "\r\n"...))
}

func (x *Exchange) reply(status int, kind, text string) {
	x.closing = x.closing || !goesOn(status) || x.unread() || x.session.server.retiring.Load()
	x.status, x.begun = status, true
	out := append(x.outlet.head(), "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ')
	out = append(out, http.StatusText(status)...)
	out = append(out, "\r\nContent-Type: "...)
	out = append(out, kind...)
	out = append(out, "\r\nX-Content-Type-Options: nosniff\r\n"...)
	if status == http.StatusMethodNotAllowed || string(x.Method()) == http.MethodOptions && status == http.StatusOK {
		out = append(out, methods...)
	}
	out = appendField(out, "Date", *x.session.server.date.Load())
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(len(text)), 10)
	out = append(out, "\r\n"...)
	out = append(x.appendConnection(out), "\r\n"...)
	if string(x.Method()) != http.MethodHead {
		out = append(out, text...)
		x.account.BytesOut = int64(len(text))
	}
	x.outlet.open(x.session, false)
	x.outlet.mem = out
	x.session.conn.SetWriteDeadline(time.Now().Add(lastWords))
	if x.outlet.flush() != nil {
		x.closing = true
	}
	x.session.conn.SetWriteDeadline(time.Time{})
}

// goesOn says whether another request on the connection may fare better.
func goesOn(status int) bool {
	switch status {
	case http.StatusOK, http.StatusNotFound, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusLoopDetected:
		return true
	}
	return false
}
