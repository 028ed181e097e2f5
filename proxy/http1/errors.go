package http1

import (
	"bytes"
	"fmt"
	"strconv"
)

// Fault is what is wrong with a message.
type Fault struct {
	Status int // what a client is answered
	what   string
}

// Error says what is wrong.
func (f *Fault) Error() string { return f.what }

// What is wrong with messages. The status is for requests; a response with any fault
// is a 502.
var (
	errBareLF      = &Fault{400, "a line does not end with CR LF"}
	errRequestLine = &Fault{400, "the request line is not METHOD SP TARGET SP VERSION"}
	errMethod      = &Fault{400, "the method is not a token"}
	errTarget      = &Fault{400, "the target is not one of HTTP's forms"}
	errLongTarget  = &Fault{414, "the target is too long"}
	errVersion     = &Fault{505, "the version is not HTTP/1.0 or HTTP/1.1"}
	errStatusLine  = &Fault{502, "the status line is not VERSION SP STATUS"}
	errName        = &Fault{400, "a field name is not a token directly before a colon"}
	errFolded      = &Fault{400, "a header line begins with a space"}
	errValue       = &Fault{400, "a field value has a control character"}
	errLargeHead   = &Fault{431, "the header is too large"}
	errManyFields  = &Fault{431, "the header has too many fields"}
	errManyOptions = &Fault{431, "the Connection field has too many options"}
	errHost        = &Fault{400, "the host is missing, repeated or no host"}
	errTargetHost  = &Fault{400, "the target's host is no host"}
	errLength      = &Fault{400, "the length is no number, or there are two"}
	errEncoding    = &Fault{400, "the transfer encoding is not chunked alone"}
	errBoth        = &Fault{400, "there are both a length and a transfer encoding"}
	errOldEncoding = &Fault{400, "HTTP/1.0 has no transfer encoding"}
	errSlow        = &Fault{408, "the request did not come in time"}
	errExpect      = &Fault{417, "the expectation is unknown"}
	errForwards    = &Fault{400, "Max-Forwards is no number, or there are two"}
	errChunk       = &Fault{400, "a chunk is malformed"}
	errChunkLine   = &Fault{400, "a chunk's extension is too long"}
	errTrailers    = &Fault{400, "the trailers are malformed or too large"}
)

// about is the field that a fault is in, if that is always the same.
func (f *Fault) about() known {
	switch f {
	case errLength:
		return contentLength
	case errEncoding, errBoth, errOldEncoding:
		return transferEncoding
	case errManyOptions:
		return connection
	case errHost:
		return host
	case errExpect:
		return expect
	case errForwards:
		return maxForwards
	}
	return other
}

// shown bounds what is quoted of a message, in bytes.
const shown = 32

// locate says where in the head a fault is: in which line, and of that a field's name or the
// beginning of the first line. Values and queries may be secret.
func (h *head) locate(b []byte, f *Fault) *Fault {
	at, number, is := h.begun, len(h.fields)+2, f.about()
	switch {
	case !h.titled:
		number = 1
	case f == errTargetHost:
		at, number = h.first, 1
	}
	for i, field := range h.fields {
		if is != other && field.is == is { // the last one, which was one too many
			at, number = int(field.name.from), i+2
		}
	}
	where := "line " + strconv.Itoa(number)
	if text := quotable(b[min(at, len(b)):], number == 1); len(text) > 0 {
		where += " (" + strconv.QuoteToASCII(string(text[:min(len(text), shown)])) + ")"
	}
	return &Fault{f.Status, where + ": " + f.what}
}

func quotable(line []byte, first bool) []byte {
	if end := bytes.IndexAny(line, "\r\n"); end >= 0 {
		line = line[:end]
	}
	if first {
		target, _, _ := bytes.Cut(line, []byte("?"))
		return target
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || blank(name[0]) {
		return nil // it may be a piece of a value
	}
	return name
}

// badAnswer is a fault of the answer that is being read.
func (r *Response) badAnswer(b []byte, err error) error {
	return fmt.Errorf("%w: %w", ErrBadAnswer, r.locate(b, err.(*Fault)))
}
