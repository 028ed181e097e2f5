package http1

import (
	"bytes"
	"math"
	"net/http"
)

// Request is the head of a request, as offsets into the buffer it was parsed from.
// Only Parse and Reset change it.
type Request struct {
	head
	limits *Limits

	method     span
	target     span // as the client wrote it
	host       span // of the target, or else of the Host field; empty if there is none
	path       span // of the target, without the query
	rest       span // what follows the authority: the path and the query
	asterisk   bool // it is for the server itself: OPTIONS *
	form       form
	hosts      int
	expects    bool // 100-continue
	trailers   bool // TE says that trailers are welcome
	websocket  bool // the Upgrade field, the only one, says websocket
	upgradings int
	login      login // that belongs to the connection
	bounded    bool  // Max-Forwards says how often it may be forwarded
	forwards   int64 // so often
}

// form is how a target is written (RFC 9112, section 3.2).
type form uint8

const (
	originForm form = iota
	absoluteForm
	asteriskForm
	authorityForm
)

// Reset makes it ready for another request with these limits.
func (r *Request) Reset(limits *Limits) {
	r.head.clear()
	*r = Request{head: r.head, limits: limits}
}

// Parse reads the head of a request from the beginning of b. It returns its length,
// or 0 if it is not all there: then it is called again with a b that goes on. An
// error, which is a *Fault, is for good.
func (r *Request) Parse(b []byte) (int, error) {
	if !r.titled {
		if more, err := r.readTitle(b); more || err != nil {
			return 0, err
		}
	}
	if more, err := r.readFields(b, r.limits); more || err != nil {
		return 0, err
	}
	if err := r.noteFields(b); err != nil {
		return 0, err
	}
	return r.at, r.check(b)
}

// readTitle reads the request line, and passes over empty lines before it (RFC 9112,
// section 2.2).
func (r *Request) readTitle(b []byte) (more bool, err error) {
	for !r.titled {
		if r.at < len(b) && !isToken[b[r.at]] && b[r.at] != '\r' && b[r.at] != '\n' {
			return false, errRequestLine // no HTTP at all: its sender may wait for us
		}
		line, more, err := r.line(b, r.limits.Head)
		if err != nil {
			r.noteMethod(b[r.at:])
		}
		switch {
		case err == errLargeHead:
			return false, errLongTarget
		case more || err != nil:
			return more, err
		case line.empty():
			continue
		}
		if err := r.readLine(b, line); err != nil {
			return false, err
		}
		r.titled, r.first = true, r.begun
	}
	return false, nil
}

// noteMethod takes the method from a request line of which the rest may be faulty: the
// answer to HEAD has no body, whatever is wrong with it.
func (r *Request) noteMethod(line []byte) {
	if end := bytes.IndexByte(line, ' '); end >= 0 {
		r.method = span{int32(r.at), int32(r.at + end)}
	}
}

// readLine reads the request line (RFC 9112, section 3).
func (r *Request) readLine(b []byte, line span) error {
	text, from := line.of(b), line.from
	first, last := bytes.IndexByte(text, ' '), bytes.LastIndexByte(text, ' ')
	if first >= 0 {
		r.method = span{from, from + int32(first)}
	}
	if first < 0 || first == last {
		return errRequestLine
	}
	r.target = span{from + int32(first) + 1, from + int32(last)}
	if !token(r.method.of(b)) {
		return errMethod
	}
	old, err := version(text[last+1:])
	if err != nil {
		return err
	}
	r.old = old
	if len(r.target.of(b)) > r.limits.Target {
		return errLongTarget
	}
	return r.readTarget(b)
}

// readTarget takes the target apart (RFC 9112, section 3.2).
func (r *Request) readTarget(b []byte) error {
	target := r.target.of(b)
	if !visible(target) || bytes.IndexByte(target, '#') >= 0 {
		return errTarget
	}
	connect := string(r.method.of(b)) == "CONNECT"
	switch {
	case len(target) == 0:
		return errTarget
	case connect:
		r.form = authorityForm
		return nil
	case target[0] == '/':
		r.form, r.rest = originForm, r.target
	case len(target) == 1 && target[0] == '*':
		if string(r.method.of(b)) != "OPTIONS" {
			return errTarget
		}
		r.form, r.asterisk = asteriskForm, true
		return nil
	default:
		if err := r.readAbsolute(target); err != nil {
			return err
		}
		// What a proxy before us would have made of OPTIONS * (RFC 9112, section 3.2.4).
		r.asterisk = r.rest.empty() && string(r.method.of(b)) == "OPTIONS"
	}
	r.path = r.rest
	if i := bytes.IndexByte(r.rest.of(b), '?'); i >= 0 {
		r.path.to = r.path.from + int32(i)
	}
	if !escaped(r.path.of(b)) {
		return errTarget
	}
	return nil
}

// readAbsolute reads http://host/path and https://host/path.
func (r *Request) readAbsolute(target []byte) error {
	i := bytes.IndexByte(target, ':')
	if i < 0 || !equalFold(target[:i], "http") && !equalFold(target[:i], "https") || !bytes.HasPrefix(target[i:], []byte("://")) {
		return errTarget
	}
	start := i + len("://")
	end := start + bytes.IndexAny(target[start:], "/?")
	if end < start {
		end = len(target)
	}
	from := r.target.from
	r.form = absoluteForm
	r.host = span{from + int32(start), from + int32(end)}
	r.rest = span{from + int32(end), r.target.to}
	return nil
}

// noteFields takes from fields what only requests have.
func (r *Request) noteFields(b []byte) error {
	for _, f := range r.fields {
		value := f.value.of(b)
		switch f.is {
		case host:
			if r.hosts++; r.hosts > 1 {
				return errHost
			}
			if r.form != absoluteForm { // which goes before it (RFC 9112, section 3.2.2)
				r.host = f.value
			}
			if len(value) > 0 && !ValidHost(value) {
				return errHost
			}
		case expect:
			if !equalFold(value, "100-continue") {
				return errExpect
			}
			r.expects = true
		case te:
			r.trailers = r.trailers || has(value, "trailers")
		case authorization:
			r.login = max(r.login, loginOf(value))
		case upgrade:
			r.upgradings++
			r.websocket = equalFold(value, "websocket")
		case maxForwards:
			if err := r.noteForwards(b, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteForwards takes the bound that two methods may have (RFC 9110, section 7.6.2). A number
// that is too large for us is as good as any.
func (r *Request) noteForwards(b, value []byte) error {
	if method := string(r.method.of(b)); method != http.MethodOptions && method != http.MethodTrace {
		return nil
	}
	if r.bounded || len(value) == 0 || !digits(value) {
		return errForwards
	}
	r.bounded, r.forwards = true, math.MaxInt64
	if n, ok := decimal(value); ok {
		r.forwards = n
	}
	return nil
}

// spent says whether it may not be forwarded any more.
func (r *Request) spent() bool { return r.bounded && r.forwards == 0 }

// check looks at the whole.
func (r *Request) check(b []byte) error {
	value := r.host.of(b)
	switch {
	case r.hosts == 0 && !r.old:
		return errHost
	case r.form == absoluteForm && !ValidHost(value):
		return errTargetHost
	case len(value) == 0 && !r.old:
		return errHost
	case len(value) > 0 && !ValidHost(value):
		return errHost
	}
	return r.checkFraming()
}

// Method is such as GET, in the letters that the client wrote.
func (r *Request) Method(b []byte) []byte { return r.method.of(b) }

// Host is the host, and port if there is one, that the request is for; empty if an
// HTTP/1.0 client names none.
func (r *Request) Host(b []byte) []byte { return r.host.of(b) }

// Path is the target's path, still escaped, without the query.
func (r *Request) Path(b []byte) []byte { return r.path.of(b) }

// hasBody says whether a body follows, be it an empty one in chunks.
func (r *Request) hasBody() bool { return r.chunked || r.length > 0 }

// wantsWebSocket says whether the request asks to go on as a WebSocket, the only
// protocol that may take over a connection. One with a body may not, be it an empty one in
// chunks: where the body ends and the protocol begins is something two parties can see
// differently. A length of 0 is not passed on, for the same reason.
func (r *Request) wantsWebSocket(b []byte) bool {
	return r.websocket && r.upgradings == 1 && r.upgrades && !r.old && !r.hasBody() && string(r.method.of(b)) == "GET"
}
