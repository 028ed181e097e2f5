package http1

import (
	"errors"
	"io"
)

// errCut is a body that ended before its end.
var errCut = errors.New("the body was cut short")

// body takes a message's body out of what was read of a connection.
type body struct {
	in      *inlet
	framing framing
	left    int64 // by count: bytes to come
	chunks  chunks
	tail    head // the trailers; their offsets are into in's bytes
	tailAt  int  // their length
	limits  *Limits
	named   hopNames // by the message's Connection
	took    int      // of in, at the last piece
	ended   bool
	count   int64 // bytes of data so far
}

func (b *body) begin(in *inlet, framing framing, length int64, limits *Limits) {
	fields := b.tail.fields[:0]
	*b = body{in: in, framing: framing, left: length, limits: limits, ended: framing == noBody || framing == byCount && length == 0}
	b.tail.fields = fields
}

// next returns the next piece that is there already, none if more must be read. It
// stays where it is until the next call.
func (b *body) next() ([]byte, error) {
	b.in.use(b.took)
	b.took = 0
	for !b.ended && b.in.len() > 0 {
		data, took, err := b.piece(b.in.bytes())
		switch {
		case err != nil:
			return nil, err
		case took == 0:
			return nil, nil
		case len(data) > 0:
			b.took = took
			b.count += int64(len(data))
			return data, nil
		}
		b.in.use(took)
	}
	return nil, nil
}

func (b *body) piece(all []byte) (data []byte, took int, err error) {
	switch b.framing {
	case byCount:
		n := int(min(b.left, int64(len(all))))
		b.pass(int64(n))
		return all[:n], n, nil
	case byClose:
		return all, len(all), nil
	}
	if b.chunks.part == trailers {
		return nil, 0, b.readTrailers(all)
	}
	n, took, err := b.chunks.next(all, b.limits)
	return all[:n], took, err
}

// pass takes n bytes off what is to come of a body by count, and is all that does: the last
// of them is its end, whichever way they go.
func (b *body) pass(n int64) {
	b.left -= n
	b.ended = b.left == 0
}

// readTrailers leaves them in the buffer, for finish.
func (b *body) readTrailers(all []byte) error {
	limits := Limits{Head: b.limits.Trailers, Fields: b.limits.Fields}
	more, err := b.tail.readFields(all, &limits)
	switch {
	case err != nil:
		return errTrailers
	case !more:
		b.ended, b.tailAt = true, b.tail.at
	}
	return nil
}

// more waits for more of the body.
func (b *body) more() error {
	b.in.use(b.took)
	b.took = 0
	err := b.in.fill()
	if err != io.EOF {
		return err
	}
	if b.framing == byClose {
		b.ended = true
		return nil
	}
	return errCut
}

// appendTrailers writes those that may be passed on.
func (b *body) appendTrailers(out []byte) []byte {
	all := b.in.bytes()
	for _, f := range b.tail.fields {
		if name := f.name.of(all); !f.is.headerOnly() && !b.named.has(name) {
			out = appendLine(out, name, f.value.of(all))
		}
	}
	return out
}

// finish takes what is left of the body out of the buffer.
func (b *body) finish() {
	b.in.use(b.took + b.tailAt)
	b.took, b.tailAt = 0, 0
}
