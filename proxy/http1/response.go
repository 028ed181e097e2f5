package http1

import "net/http"

// Response is the head of a response, as offsets into the buffer it was parsed from.
// Only Parse and Reset change it.
type Response struct {
	head
	limits *Limits

	status    int // from 100 to 999
	reason    span
	websocket bool
	offers    bool // there is an Upgrade field
}

// Reset makes it ready for another response with these limits.
func (r *Response) Reset(limits *Limits) {
	r.head.clear()
	*r = Response{head: r.head, limits: limits}
}

// Parse reads the head of a response from the beginning of b, as Request.Parse does
// that of a request.
func (r *Response) Parse(b []byte) (int, error) {
	if !r.titled {
		line, more, err := r.line(b, r.limits.Head)
		if more || err != nil {
			return 0, err
		}
		if err := r.readLine(b, line); err != nil {
			return 0, err
		}
		r.titled = true
	}
	if more, err := r.readFields(b, r.limits); more || err != nil {
		return 0, err
	}
	for _, f := range r.fields {
		if f.is == upgrade {
			r.offers = true
			r.websocket = r.websocket || equalFold(f.value.of(b), "websocket")
		}
	}
	return r.at, nil
}

// readLine reads the status line (RFC 9112, section 4). The space before a reason
// that is missing may be missing, too.
func (r *Response) readLine(b []byte, line span) error {
	all := line.of(b)
	const status, reason = len("HTTP/1.1 "), len("HTTP/1.1 200 ")
	if len(all) < reason-1 || all[status-1] != ' ' || len(all) >= reason && all[reason-1] != ' ' {
		return errStatusLine
	}
	old, err := version(all[:status-1])
	code, ok := decimal(all[status : reason-1])
	if err != nil || !ok || code < 100 {
		return errStatusLine
	}
	r.old, r.status = old, int(code)
	if len(all) > reason {
		r.reason = span{line.from + int32(reason), line.to}
	}
	if !text(r.reason.of(b)) {
		return errStatusLine
	}
	return nil
}

// headOnly says whether it ends with its head, whatever its lengths and codings say
// (RFC 9112, section 6.3).
func (r *Response) headOnly(method []byte) bool {
	return string(method) == http.MethodHead || r.status < 200 || r.status == http.StatusNoContent || r.status == http.StatusNotModified
}

// framing says how the body of a response ends, which depends on the request
// (RFC 9112, section 6.3).
func (r *Response) framing(method []byte) (framing, error) {
	if r.headOnly(method) {
		return noBody, nil
	}
	err := r.checkFraming()
	switch {
	case err != nil:
		return noBody, err
	case r.chunked:
		return byChunks, nil
	case r.lengths > 0 && r.length == 0:
		return noBody, nil
	case r.lengths > 0:
		return byCount, nil
	default:
		return byClose, nil
	}
}

// surplus says whether an answer that has no body announces one, which may follow: one
// that must not, or in a way that is not clear.
func (r *Response) surplus(method []byte) bool {
	return r.headOnly(method) && r.checkFraming() != nil ||
		r.status == http.StatusNoContent && (r.encodings > 0 || r.length > 0)
}

// framing is how the end of a body is told.
type framing uint8

const (
	noBody framing = iota
	byCount
	byChunks
	byClose
)
