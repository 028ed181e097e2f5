package http1

import "bytes"

// chunks takes chunked bodies apart (RFC 9112, section 7.1).
type chunks struct {
	part part
	left int64 // of the current chunk
}

type part uint8

const (
	sizeLine part = iota
	chunkData
	dataEnd
	trailers // which are read like a header
)

// next looks at b, of which nothing was looked at yet, until the trailers. The first
// n bytes are data of the body, if that is not 0; the first took bytes are done
// with. If took is 0 there must be more of b, which is no longer than a line may be.
func (c *chunks) next(b []byte, limits *Limits) (n, took int, err error) {
	switch c.part {
	case chunkData:
		n = int(min(c.left, int64(len(b))))
		if c.left -= int64(n); c.left == 0 {
			c.part = dataEnd
		}
		return n, n, nil
	case dataEnd:
		took, err = c.readDataEnd(b)
	case sizeLine:
		took, err = c.readSize(b, limits)
	}
	return 0, took, err
}

func (c *chunks) readDataEnd(b []byte) (took int, err error) {
	switch {
	case len(b) > 0 && b[0] != '\r' || len(b) > 1 && b[1] != '\n':
		return 0, errChunk
	case len(b) < 2:
		return 0, nil
	}
	c.part = sizeLine
	return 2, nil
}

// readSize reads the line before a chunk. Its extension, which nobody knows, is
// passed over.
func (c *chunks) readSize(b []byte, limits *Limits) (took int, err error) {
	if len(b) > 0 && hex[b[0]] == noDigit { // who sends such a thing is not waited for
		return 0, errChunk
	}
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0 && len(b) < limits.ChunkLine:
		return 0, nil
	case end < 0 || end >= limits.ChunkLine:
		return 0, errChunkLine
	case end == 0 || b[end-1] != '\r':
		return 0, errChunk
	}
	size, ok := chunkSize(b[:end-1])
	if !ok {
		return 0, errChunk
	}
	c.left, c.part = size, chunkData
	if size == 0 {
		c.part = trailers
	}
	return end + 1, nil
}

// chunkSize reads a size in hexadecimal digits, blanks, and perhaps an extension.
func chunkSize(b []byte) (size int64, ok bool) {
	at := 0
	for at < len(b) && hex[b[at]] != noDigit {
		if size >= 1<<59 {
			return 0, false
		}
		size = size<<4 | int64(hex[b[at]])
		at++
	}
	from, to := trim(b, at, len(b))
	rest := b[from:to]
	return size, at > 0 && (len(rest) == 0 || rest[0] == ';' && text(rest))
}

const noDigit = 0xff

var hex = hexDigits()

func hexDigits() (value [256]byte) {
	for c := range value {
		value[c] = noDigit
	}
	for i := range byte(10) {
		value['0'+i] = i
	}
	for i := range byte(6) {
		value['a'+i], value['A'+i] = 10+i, 10+i
	}
	return value
}
