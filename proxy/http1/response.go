package http1

// Response is the head of a response, as offsets into the buffer it was parsed from.
// Only Parse and Reset change it.
type Response struct {
	head
	limits *Limits

	status    int // from 100 to 999
	reason    span
	websocket bool
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
		if f.is == upgrade && equalFold(f.value.of(b), "websocket") {
			r.websocket = true
		}
	}
	return r.at, r.checkFraming()
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

// framing says how the body of a response ends, which depends on the request
// (RFC 9112, section 6.3).
func (r *Response) framing(method []byte) framing {
	switch {
	case string(method) == "HEAD", r.status < 200, r.status == 204, r.status == 304:
		return noBody
	case r.chunked:
		return byChunks
	case r.lengths > 0 && r.length == 0:
		return noBody
	case r.lengths > 0:
		return byCount
	default:
		return byClose
	}
}

// framing is how the end of a body is told.
type framing uint8

const (
	noBody framing = iota
	byCount
	byChunks
	byClose
)
