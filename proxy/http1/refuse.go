package http1

import (
	"net/http"
	"strconv"
	"time"
)

// Refuse answers with a short text instead of a backend's answer. The connection
// goes on if the next request on it may fare better and can be found.
func (x *Exchange) Refuse(status int, text string) {
	keep := status == http.StatusOK || status == http.StatusNotFound || status == http.StatusBadGateway || status == http.StatusServiceUnavailable
	unread := x.request.hasBody() && x.session.taken <= len(x.head) // which would be taken for the next request
	x.closing = x.closing || !keep || unread || x.session.server.retiring.Load()
	x.status, x.begun = status, true
	out := append(x.outlet.head(), "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ')
	out = append(out, http.StatusText(status)...)
	out = append(out, "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"...)
	if status == http.StatusMethodNotAllowed {
		out = append(out, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n"...)
	}
	out = appendField(out, "Date", *x.session.server.date.Load())
	out = append(out, "Content-Length: "...)
	if text != "" {
		text += "\n"
	}
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
