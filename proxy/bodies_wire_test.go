package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// framing is how the end of a body is told.
type framing int

const (
	noBody framing = iota
	counted
	chunked
	untilClose
)

// pattern is what bodies are parts of: random, so that bytes which are lost, doubled or
// in another's place are seen.
var pattern = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]byte, 2*mebibyte)
	for i := range all {
		all[i] = byte(random.Uint32())
	}
	return all
}()

// wire is a message as it is sent.
type wire struct {
	framing framing
	size    int    // of the body, as it is announced
	body    []byte // that comes
	all     []byte
	head    int      // bytes of all
	pieces  []extent // of the body
	cuts    []int    // of all: what is before one comes through before anything behind it is sent
	bytes   bool     // each byte is sent alone
	trailer string   // its value, if there is one
}

// extent is where a piece of a body ends, in the message and in the body.
type extent struct{ all, body int }

// draw is where what happens comes from.
type draw struct{ *rand.Rand }

func (d draw) one(in int) bool { return d.IntN(in) == 0 }

func pick[T any](d draw, from ...T) T { return from[d.IntN(len(from))] }

// edges are sizes at which the engine goes another way: its buffers, what is written
// without copying, what is spliced, and their multiples.
var edges = []int{1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 384 << 10, 512 << 10}

// size draws one for a body, of which many are an edge, or one with the head, or a sum
// of two, or one off.
func (d draw) size(head int) int {
	n := 0
	switch d.IntN(8) {
	case 0:
		return d.IntN(3)
	case 1, 2:
		return d.IntN(3000)
	case 3:
		return d.IntN(100_000)
	case 4:
		n = pick(d, edges...) - head
	case 5:
		n = pick(d, edges...) + pick(d, edges[:7]...)
	default:
		n = pick(d, edges...)
	}
	return max(n+d.IntN(3)-1, 0)
}

// newWire draws the way in which a body of that size is sent behind the lines of a head.
func (d draw) newWire(lines string, framing framing, size int) *wire {
	from := d.IntN(len(pattern) - size)
	w := &wire{framing: framing, size: size, body: pattern[from : from+size : from+size]}
	switch framing {
	case counted:
		lines += fmt.Sprintf("Content-Length: %d\r\n", size)
	case chunked:
		lines += "Transfer-Encoding: chunked\r\n"
	}
	w.all = append(make([]byte, 0, size+size/4+4096), lines+"\r\n"...)
	w.head = len(w.all)
	if framing == chunked {
		w.appendChunks(d)
	} else {
		w.append(w.body)
	}
	w.schedule(d)
	return w
}

// append adds a piece of the body.
func (w *wire) append(data []byte) {
	last := 0
	if len(w.pieces) > 0 {
		last = w.pieces[len(w.pieces)-1].body
	}
	w.all = append(w.all, data...)
	w.pieces = append(w.pieces, extent{len(w.all), last + len(data)})
}

// appendChunks adds the body in chunks of drawn sizes, with extensions and trailers.
func (w *wire) appendChunks(d draw) {
	least := len(w.body)/500 + 1 // of a chunk, or else there are too many
	usual := max(pick(d, 1, 7, 1000, 8<<10-1, 8<<10, 32<<10, 128<<10, len(w.body)), least)
	varies, extended := d.one(2), d.one(3)
	for rest := w.body; len(rest) > 0; {
		n := usual
		if varies {
			n = least + d.IntN(usual)
		}
		n = min(n, len(rest))
		w.all = append(w.all, fmt.Sprintf(pick(d, "%x", "%X", "00%x"), n)...)
		if extended {
			w.all = append(w.all, pick(d, "", " ", ";", ";a=b", " ; a=\"b c\"", ";x="+strings.Repeat("y", d.IntN(200)))...)
		}
		w.all = append(w.all, "\r\n"...)
		w.append(rest[:n])
		w.all = append(w.all, "\r\n"...)
		rest = rest[n:]
	}
	w.all = append(w.all, "0\r\n"...)
	if d.one(4) {
		w.trailer = strings.Repeat("t", 1+d.IntN(1000))
		w.all = append(w.all, "X-Sum: "+w.trailer+"\r\n"...)
	}
	w.all = append(w.all, "\r\n"...)
}

// schedule draws where the sender waits until what it has sent has come through.
func (w *wire) schedule(d draw) {
	total := len(w.all)
	switch d.IntN(6) {
	case 0, 1: // all at once
	case 2:
		w.cuts = []int{w.head}
	case 3:
		if total < 4000 {
			w.bytes = true
			return
		}
		fallthrough
	default:
		for range 1 + d.IntN(4) {
			w.cuts = append(w.cuts, d.cut(w.head, total))
		}
	}
	w.setCuts(w.cuts)
}

// cut draws where a message is cut: often where what came before it, or what is left, is
// at an edge.
func (d draw) cut(head, total int) int {
	switch d.IntN(7) {
	case 0:
		return head
	case 1:
		return head + d.IntN(3) - 1
	case 2:
		return total - pick(d, edges...)
	case 3:
		return total - pick(d, edges...) + d.IntN(3) - 1
	case 4:
		return pick(d, edges...) + d.IntN(3) - 1
	case 5:
		return total - d.IntN(4)
	}
	return d.IntN(total)
}

// setCuts has the message cut there, where that is within it.
func (w *wire) setCuts(cuts []int) {
	slices.Sort(cuts)
	cuts = slices.DeleteFunc(slices.Compact(cuts), func(at int) bool { return at <= 0 || at >= len(w.all) })
	w.cuts, w.bytes = cuts, false
}

// whole makes it a message that is sent at once.
func (w *wire) whole() { w.setCuts(nil) }

// last is where the message may break off at the latest; less than the head if nowhere.
func (w *wire) last() int {
	switch {
	case w.framing == noBody:
		return -1
	case w.framing == untilClose: // of which a reset is no end
		return len(w.all)
	}
	return len(w.all) - 1
}

// breakOff has the message end there, before its end.
func (w *wire) breakOff(at int) {
	w.all, w.trailer = w.all[:at], ""
	w.body = w.body[:w.arrives(at)]
	w.setCuts(w.cuts)
}

// arrives says how much of the body must come through once that much of the message was
// sent; -1 if there may be no head yet.
func (w *wire) arrives(sent int) int {
	if sent < w.head {
		return -1
	}
	last := extent{}
	for _, piece := range w.pieces {
		size := piece.body - last.body
		if sent < piece.all {
			return last.body + max(sent-(piece.all-size), 0)
		}
		last = piece
	}
	return last.body
}

func (w *wire) String() string {
	kind := [...]string{"no body", "length", "chunks", "until close"}[w.framing]
	return fmt.Sprintf("%s, head %d, body %d of %d, in all %d, cut at %v, bytewise %t", kind, w.head, len(w.body), w.size, len(w.all), w.cuts, w.bytes)
}
