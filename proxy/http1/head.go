package http1

import (
	"bytes"
	"math/rand/v2"
	"slices"
)

// span is a part of the buffer that a head stands in.
type span struct{ from, to int32 }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }
func (s span) empty() bool        { return s.from == s.to }

// field is one header line.
type field struct {
	name, value span
	is          known
}

// head is what requests and responses have in common: lines, read into offsets of
// a buffer that the caller owns and may move.
type head struct {
	fields []field

	at     int // where the first line begins that is not read yet
	begun  int // where the line began that was read last
	first  int // where the first one began
	seen   int // up to where that line's end was looked for
	titled bool
	ended  bool

	lengths   int   // Content-Length lines
	length    int64 // what they say
	encodings int   // Transfer-Encoding lines
	chunked   bool  // one says chunked, no more
	misread   bool  // a length is no number, or there are two
	close     bool  // Connection says close
	keepAlive bool  // Connection says keep-alive
	upgrades  bool  // Connection says upgrade
	old       bool  // HTTP/1.0

	named   hopNames // what else Connection names
	options int      // items of Connection, empty ones among them
}

// maxOptions bounds the items of a message's Connection fields: each field is compared
// with all of them. No honest message has more than a few.
const maxOptions = 32

// clear makes it ready for another message.
func (h *head) clear() { *h = head{fields: h.fields[:0], named: h.named[:0]} }

// line finds the next line of b, without its end. It returns more if it is not all
// there.
func (h *head) line(b []byte, limit int) (line span, more bool, err error) {
	h.begun = h.at
	i := bytes.IndexByte(b[h.seen:], '\n')
	if i < 0 {
		h.seen = len(b)
		if len(b) > limit {
			return span{}, false, errLargeHead
		}
		return span{}, true, nil
	}
	end := h.seen + i
	if end >= limit {
		return span{}, false, errLargeHead
	}
	if end == h.at || b[end-1] != '\r' {
		return span{}, false, errBareLF
	}
	line = span{int32(h.at), int32(end - 1)}
	h.at, h.seen = end+1, end+1
	return line, false, nil
}

// readFields reads lines up to the empty one.
func (h *head) readFields(b []byte, limits *Limits) (more bool, err error) {
	for !h.ended {
		line, more, err := h.line(b, limits.Head)
		switch {
		case more || err != nil:
			return more, err
		case line.empty():
			h.ended = true
		case len(h.fields) >= limits.Fields:
			return false, errManyFields
		default:
			f, err := readField(b, line)
			if err != nil {
				return false, err
			}
			h.fields = append(h.fields, f)
			if err := h.note(b, f); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// readField reads a line (RFC 9112, section 5).
func readField(b []byte, line span) (field, error) {
	at := int(line.from)
	if blank(b[at]) {
		return field{}, errFolded
	}
	end := int(line.to)
	for at < end && isToken[b[at]] {
		at++
	}
	if at == int(line.from) || at == end || b[at] != ':' {
		return field{}, errName
	}
	name := span{line.from, int32(at)}
	from, to := trim(b, at+1, end)
	if !text(b[from:to]) {
		return field{}, errValue
	}
	return field{name, span{int32(from), int32(to)}, identify(name.of(b))}, nil
}

// note takes from a field what says where the message ends and what becomes of the
// connection.
func (h *head) note(b []byte, f field) error {
	value := f.value.of(b)
	switch f.is {
	case contentLength:
		n, ok := decimal(value)
		h.misread = h.misread || !ok || h.lengths > 0 && n != h.length
		h.lengths, h.length = h.lengths+1, n
	case transferEncoding:
		h.encodings++
		h.chunked = h.encodings == 1 && equalFold(value, "chunked")
	case connection:
		return h.noteConnection(value)
	}
	return nil
}

func (h *head) noteConnection(list []byte) error {
	for len(list) > 0 {
		if h.options++; h.options > maxOptions {
			return errManyOptions
		}
		var option []byte
		option, list = nextItem(list)
		switch {
		case len(option) == 0:
		case equalFold(option, "close"):
			h.close = true
		case equalFold(option, "keep-alive"):
			h.keepAlive = true
		case equalFold(option, "upgrade"):
			h.upgrades = true
		default:
			h.named = append(h.named, nameHash(option))
		}
	}
	return nil
}

// checkFraming applies what holds for all messages with a body, requests and responses
// alike (RFC 9112, sections 6.1 to 6.3).
func (h *head) checkFraming() error {
	switch {
	case h.misread:
		return errLength
	case h.encodings == 0:
		return nil
	case !h.chunked:
		return errEncoding
	case h.lengths > 0:
		return errBoth
	case h.old:
		return errOldEncoding
	}
	return nil
}

// persists says whether the connection may carry another message after this one
// (RFC 9112, section 9.3).
func (h *head) persists() bool { return !h.close && (!h.old || h.keepAlive) }

// hopNames are names of fields, as nameHash has them.
type hopNames []uint64

// has says whether a name is one of them. Numbers are compared, so that long names which
// are alike cost no more than others.
func (h hopNames) has(name []byte) bool { return len(h) > 0 && slices.Contains(h, nameHash(name)) }

// hashSeed keeps names that are taken for one another from being made up.
var hashSeed = rand.Uint64()

// nameHash is the same for a name in whichever letters: FNV-1a, from another beginning.
func nameHash(name []byte) uint64 {
	h := hashSeed
	for _, c := range name {
		h = (h ^ uint64(lowerOf(c))) * 0x100000001b3
	}
	return h
}

// version reads HTTP/1.x. Of other versions that are well-formed the fault is
// errVersion.
func version(b []byte) (old bool, err error) {
	switch string(b) {
	case "HTTP/1.1":
		return false, nil
	case "HTTP/1.0":
		return true, nil
	}
	if len(b) != len("HTTP/1.1") || string(b[:5]) != "HTTP/" || b[6] != '.' || !digit(b[5]) || !digit(b[7]) {
		return false, errRequestLine
	}
	if b[5] != '1' {
		return false, errVersion
	}
	return false, nil // a later minor version is spoken to as 1.1 (RFC 9110, section 2.5)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
