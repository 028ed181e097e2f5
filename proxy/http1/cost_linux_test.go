package http1

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

var costFor = flag.Duration("cost", 0, "how long inputs are looked for that cost much to read, for requests and for answers; 0 is the short form")

const (
	costSize = 64 << 10 // bytes of each input
	// costRatio is how many times as much as a plain message of that size one may cost. The
	// short form, which must hold beside anything else, allows twice as much. What is a
	// product of two things in the message costs hundreds of times as much.
	costRatio = 10
)

// stretch is a part of a message that is made by a rule: of kinds from 0 to 6 in the header,
// from 20 to 26 in the trailers, and of kind 10 before the first line.
type stretch struct{ kind, count, size, name int }

// costNames are fields of which something may be made, whoever sends them.
var costNames = strings.Fields("Connection Cookie TE Via Forwarded X-Forwarded-For X-Forwarded-Proto X-Real-IP X-Request-Id Trailer Keep-Alive " +
	"Expect Upgrade Accept Range Transfer-Encoding Max-Forwards X_Forwarded_For X_Request_Id X_______________ X-Forwarded-Xyz Set-Cookie Date q Content_Length Qroxy-Authenticate Transfer-Encodinx WWW-Authenticate Authorization")

// costLists are values that can go on for long.
var costLists = strings.Fields("q, , close, q;, q=b; = ; trailers, for=1, 1.1_a, keep-alive, %41 \xe9 : \" upgrade,")

const (
	header = iota
	front
	footer
)

// write adds it if it belongs to that place.
func (p stretch) write(out []byte, place int) []byte {
	if p.kind/10 != place {
		return out
	}
	name, list := costNames[p.name%len(costNames)], costLists[p.size%len(costLists)]
	for i := 0; i < p.count && len(out) < costSize; i++ {
		switch p.kind % 20 {
		case 0: // short fields
			out = fmt.Appendf(out, "%s:\r\n", strings.Repeat(string(rune('a'+p.name%26)), 1+p.size%24))
		case 1: // fields that differ in the last letters
			out = fmt.Appendf(out, "%s%04d: x\r\n", strings.Repeat("q", p.size%24), i)
		case 2:
			out = fmt.Appendf(out, "%s: %s\r\n", name, list)
		case 3:
			out = fmt.Appendf(out, "%s: %s\r\n", name, strings.Repeat(list, p.size%300))
		case 4:
			if i == 0 {
				out = fmt.Appendf(out, "%s: ", name)
			}
			out = append(out, list...)
			if i == p.count-1 || len(out) >= costSize {
				out = append(out, "\r\n"...)
			}
		case 5: // options that differ
			out = fmt.Appendf(out, "Connection: %s%04d\r\n", strings.Repeat("q", p.size%24), i)
		case 6:
			if i == 0 {
				out = append(out, "Connection: "...)
			}
			out = fmt.Appendf(out, "%s%04d,", strings.Repeat("q", p.size%24), i)
			if i == p.count-1 || len(out) >= costSize {
				out = append(out, "\r\n"...)
			}
		case 10: // before the first line
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// costInput is a message.
type costInput struct {
	answer bool
	parts  []stretch
	query  int // costLists, so many times in the target
	chunk  int // bytes of each chunk; 0: no body
	extend int // bytes of each chunk's extension
}

// String implements fmt.Stringer.
func (in costInput) String() string {
	return fmt.Sprintf("%+v query %d chunk %d extension %d", in.parts, in.query, in.chunk, in.extend)
}

func (in *costInput) bytes() []byte {
	var out []byte
	for _, p := range in.parts {
		out = p.write(out, front)
	}
	if in.answer {
		out = append(out, "HTTP/1.1 401 Unauthorized\r\n"...)
	} else {
		list := strings.Trim(costLists[in.query%len(costLists)], ";") + "&"
		out = fmt.Appendf(out, "POST /%s?%s HTTP/1.1\r\nHost: a\r\n", strings.Repeat("%41", in.query%1000), strings.Repeat(list, in.query*3%2000))
	}
	trailing := 0
	if slices.ContainsFunc(in.parts, func(p stretch) bool { return p.kind >= 20 }) {
		trailing = DefaultLimits().Trailers
	}
	if in.chunk > 0 {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	for _, p := range in.parts {
		out = p.write(out, header)
	}
	out = append(out, "\r\n"...)
	for in.chunk > 0 && len(out) < costSize-trailing {
		out = fmt.Appendf(out, "%x%s\r\n%s\r\n", in.chunk, ";"+strings.Repeat("q", in.extend), strings.Repeat("x", in.chunk))
	}
	if in.chunk > 0 {
		out = append(out, "0\r\n"...)
		for _, p := range in.parts {
			out = p.write(out, footer)
		}
		out = append(out, "\r\n"...)
	}
	return out
}

// meter does with messages what the engine does, without sockets.
type meter struct {
	x   *Exchange
	in  inlet
	out outlet
	mem []byte
}

func newMeter() *meter {
	m := &meter{x: newTestExchange()}
	m.x.session.trusted = true
	m.out = outlet{conn: sink{}, chunked: true}
	return m
}

// take reads a message and writes it anew.
func (m *meter) take(b []byte, answer bool) {
	limits, x := &m.x.session.server.config.Limits, m.x
	n, chunked, named := 0, false, hopNames(nil)
	if answer {
		x.response.Reset(limits)
		if n, _ = x.response.Parse(b); n > 0 {
			x.response.challenges(b)
			m.mem = x.appendResponse(m.mem[:0], &x.response, b, byChunks)
			chunked, named = x.response.chunked, x.response.named
		}
	} else {
		x.idLength = 0
		x.request.Reset(limits)
		if n, _ = x.request.Parse(b); n > 0 {
			x.head = b[:n]
			x.Cookie("session")
			x.Field("x-user")
			x.Secure()
			x.Via("lbnode-0123456789abcdef")
			m.mem = x.appendRequest(m.mem[:0])
			chunked, named = x.request.chunked, x.request.named
		}
	}
	if n > 0 && chunked {
		m.takeBody(b[n:], limits, named)
	}
}

func (m *meter) takeBody(b []byte, limits *Limits, named hopNames) {
	m.in.mem, m.in.from, m.in.to = b, 0, len(b)
	source := &m.x.source
	source.begin(&m.in, byChunks, 0, limits)
	source.named = named
	for {
		data, err := source.next()
		if err != nil || len(data) == 0 {
			break
		}
		m.out.write(data)
	}
	m.out.end(source)
	m.out.flush()
}

// cost is the time of this thread's processor that a message takes, the least of some
// tries.
func (m *meter) cost(b []byte, answer bool) time.Duration {
	const tries = 7
	m.take(b, answer) // buffers have grown
	least := time.Hour
	for range tries {
		began := threadTime()
		m.take(b, answer)
		least = min(least, threadTime()-began)
	}
	return least
}

func threadTime() time.Duration {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID; getrusage counts in ticks
	var spent syscall.Timespec
	if _, _, err := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadClock, uintptr(unsafe.Pointer(&spent)), 0); err != 0 {
		panic(err)
	}
	return time.Duration(spent.Nano())
}

// plainMessage is one of that size as many send it.
func plainMessage(answer bool) []byte {
	out := []byte("GET /a/path?with=a&query=b HTTP/1.1\r\nHost: a.example\r\n")
	if answer {
		out = []byte("HTTP/1.1 200 OK\r\n")
	}
	for i := 0; len(out) < costSize-200; i++ {
		out = fmt.Appendf(out, "X-Field-%d: %s\r\n", i, strings.Repeat("a value ", 10))
	}
	return append(out, "\r\n"...)
}

// costFamilies are what hostile clients and backends were seen to send, and what is like
// it.
func costFamilies() (all []costInput) {
	for _, parts := range [][]stretch{
		{{4, 28000, 0, 0}, {0, 900, 3, 0}},     // Connection: q,q,q and fields
		{{6, 8000, 0, 0}, {1, 900, 0, 0}},      // options that differ and fields
		{{5, 450, 20, 0}, {1, 500, 20, 0}},     // as lines
		{{4, 60000, 1, 0}}, {{4, 10000, 2, 0}}, // , , , and close, close
		{{2, 900, 0, 0}, {0, 90, 1, 2}},                            // Connection, often
		{{4, 30000, 4, 1}}, {{4, 30000, 5, 1}}, {{4, 30000, 6, 1}}, // Cookies
		{{2, 990, 0, 1}}, {{2, 990, 7, 2}}, {{4, 30000, 7, 2}}, // TE
		{{2, 990, 8, 5}}, {{4, 30000, 8, 5}}, {{4, 30000, 8, 4}}, // for whom
		{{2, 990, 9, 3}}, {{4, 30000, 9, 3}}, {{2, 990, 0, 8}}, // Via, X-Request-Id
		{{2, 990, 0, 17}}, {{2, 990, 0, 18}}, {{2, 990, 0, 19}}, {{2, 990, 0, 20}},
		{{2, 990, 0, 14}}, {{4, 30000, 0, 14}}, {{4, 30000, 0, 13}}, // Range, Accept
		{{10, 30000, 0, 0}}, {{4, 30000, 1, 27}}, {{4, 30000, 3, 27}}, {{2, 990, 0, 27}}, {{2, 990, 0, 28}},
		{{4, 30, 0, 0}, {20, 900, 3, 0}}, {{6, 30, 20, 0}, {21, 900, 20, 0}}, {{20, 900, 0, 0}},
	} {
		chunk := 0
		if parts[len(parts)-1].kind >= 20 {
			chunk = 5
		}
		all = append(all, costInput{parts: parts, chunk: chunk})
		if parts[0].kind != 10 {
			all = append(all, costInput{parts: parts, chunk: chunk, answer: true})
		}
	}
	for _, answer := range []bool{false, true} {
		for _, chunk := range []int{1, 2, 16} {
			all = append(all, costInput{answer: answer, chunk: chunk}, costInput{answer: answer, chunk: chunk, extend: 200})
		}
	}
	return all
}

// change gives an input that differs a little.
func (in costInput) change() costInput {
	in.parts = slices.Clone(in.parts)
	kinds := []int{0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 26, 10}
	random := func() stretch {
		return stretch{kinds[rand.IntN(len(kinds)-1)], 1 << rand.IntN(16), rand.IntN(400), rand.IntN(len(costNames))}
	}
	switch n := len(in.parts); rand.IntN(7) {
	case 0:
		in.parts = append(in.parts, random())
	case 1:
		if n > 0 {
			in.parts = slices.Delete(in.parts, n-1, n)
		}
	case 2:
		in.query = rand.IntN(4000)
	case 3:
		in.chunk, in.extend = rand.IntN(20), rand.IntN(250)
	default:
		if n == 0 {
			return in
		}
		p := &in.parts[rand.IntN(n)]
		switch r := random(); rand.IntN(4) {
		case 0:
			p.kind = r.kind
		case 1:
			p.count = r.count
		case 2:
			p.size = r.size
		default:
			p.name = r.name
		}
	}
	return in
}

// No message may cost much more than others of its size.
func TestCostIsLinear(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := newMeter()
	for _, answer := range []bool{false, true} {
		plain := m.cost(plainMessage(answer), answer)
		ratio := func(in costInput) float64 { return float64(m.cost(in.bytes(), answer)) / float64(plain) }
		allowed := costRatio
		if *costFor == 0 {
			allowed *= 2
		}
		var best []costInput
		for _, in := range costFamilies() {
			if in.answer != answer {
				continue
			}
			best = append(best, in)
			if got := ratio(in); got > float64(allowed) {
				t.Errorf("answer %v: %v costs %.1f times what a plain message does (%v), want no more than %d", answer, in, got, plain, allowed)
			}
		}
		if *costFor > 0 {
			worst, got := climb(best, ratio, *costFor)
			t.Logf("answer %v: plain %v, worst %.1f times as much: %v; %.300q", answer, plain, got, worst, worst.bytes())
			if got > float64(allowed) {
				t.Errorf("want no more than %d times", allowed)
			}
		}
	}
}

// climb looks for what costs most, from several beginnings.
func climb(from []costInput, ratio func(costInput) float64, limit time.Duration) (worst costInput, most float64) {
	type seen struct {
		costInput
		ratio float64
	}
	var all []seen
	for _, in := range from {
		all = append(all, seen{in, ratio(in)})
	}
	for began := time.Now(); time.Since(began) < limit; {
		at := rand.IntN(len(all))
		in := all[at].costInput
		for range 1 + rand.IntN(3) {
			in = in.change()
		}
		if got := ratio(in); got > all[at].ratio {
			if again := ratio(in); min(got, again) > all[at].ratio { // not by chance
				all[at] = seen{in, min(got, again)}
			}
		}
	}
	top := slices.MaxFunc(all, func(a, b seen) int { return int(1000 * (a.ratio - b.ratio)) })
	return top.costInput, ratio(top.costInput)
}
