package http1

import "sync"

const (
	smallBuffer = 8 << 10  // a request's head, and a small body
	largeBuffer = 32 << 10 // what a backend sends at once
)

// buffer holds bytes that were read and not yet used. It has memory only while it
// holds some.
type buffer struct {
	mem      []byte
	from, to int
}

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

func borrow(size int) []byte {
	switch {
	case size <= smallBuffer:
		return smallBuffers.Get().(*[smallBuffer]byte)[:]
	case size <= largeBuffer:
		return largeBuffers.Get().(*[largeBuffer]byte)[:]
	}
	return make([]byte, size)
}

func giveBack(mem []byte) {
	switch cap(mem) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(mem[:smallBuffer]))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(mem[:largeBuffer]))
	}
}

// bytes are those that are held.
func (b *buffer) bytes() []byte { return b.mem[b.from:b.to] }

func (b *buffer) len() int { return b.to - b.from }

// use takes n bytes away from the front.
func (b *buffer) use(n int) {
	if b.from += n; b.from == b.to {
		b.from, b.to = 0, 0
	}
}

// room gives space for more behind what is held, in memory of that size at first.
// What is held may move.
func (b *buffer) room(size int) []byte {
	switch {
	case b.mem == nil:
		b.mem = borrow(size)
	case b.to < len(b.mem):
	case b.from > 0:
		b.to = copy(b.mem, b.bytes())
		b.from = 0
	default:
		b.grow()
	}
	return b.mem[b.to:]
}

func (b *buffer) grow() {
	more := borrow(2 * len(b.mem))
	b.to = copy(more, b.bytes())
	b.from = 0
	giveBack(b.mem)
	b.mem = more
}

// release gives the memory back if nothing is held.
func (b *buffer) release() {
	if b.mem != nil && b.from == b.to {
		giveBack(b.mem)
		*b = buffer{}
	}
}

// drop gives the memory back, with what is held.
func (b *buffer) drop() {
	b.from, b.to = 0, 0
	b.release()
}
