package proxy

import (
	"fmt"
	"net/http"
	"strings"
)

// feature is what a conversation is held over, of all that makes bodies go another way.
type feature string

const (
	plain     feature = "plain"
	hedging   feature = "hedge"
	retrying  feature = "retry"
	telling1  feature = "PROXY v1 to backends"
	telling2  feature = "PROXY v2 to backends"
	toldOf    feature = "PROXY from clients"
	bounded   feature = "one connection to the backend"
	encrypted feature = "TLS to backends"
)

// trade is one request and its answer: what is planned, and how far it has come.
type trade struct {
	path     string
	method   string
	old      bool // the client speaks HTTP/1.0
	keeps    bool // the client would go on with its connection
	behind   bool // it is sent without waiting for the answer before
	expects  bool // it asks for a 100 Continue
	waits    bool // and waits for that before its body is sent
	upgrades bool // to a WebSocket; the bodies are what goes over that
	request  *wire
	answer   *wire
	status   int
	announce int    // a length that an answer without a body has; -1: none
	persists bool   // the backend says that its connection goes on
	shuts    bool   // it closes it all the same
	surplus  string // what it sends behind the answer
	breaks   breaks // off in the middle of the answer
	fails    int    // how the first attempt breaks off, from 1; 0: it does not
	hangs    bool   // the first attempt is not answered before there is a second
	late     bool   // then that first one is answered, not the second

	// Guarded by the conversation's mu.
	attempts  int
	alone     bool // the first attempt is answered though it hangs
	asked     int  // of the request's body came; -1: not even the head
	answered  int  // of the answer's
	told      bool
	delivered bool // the client has all of the answer
	done      bool // the backend does no more for it
	over      int  // the connection that carried the answer, by its number
}

// breaks is how a backend breaks an answer off.
type breaks int

const (
	never      breaks = iota
	breaksNow         // the connection, behind what it has sent
	breaksThen        // and closes it when that has come through
	breaksHard        // it then
)

// draw draws the trades of one client.
func (c *conversation) drawTrades(d draw, count int) []*trade {
	var trades []*trade
	for i := range count {
		t := c.drawTrade(d, fmt.Sprintf("/%d/%d", len(c.clients), i))
		if i > 0 {
			t.behind = d.one(2) && t.mayStandBehind(trades[i-1])
		}
		trades = append(trades, t)
	}
	return trades
}

// mayStandBehind says whether the request may be sent while the one before is under way.
func (t *trade) mayStandBehind(before *trade) bool {
	return !before.endsClient() && before.reusable() && !t.hangs && t.fails == 0
}

func (c *conversation) drawTrade(d draw, path string) *trade {
	t := &trade{
		path: path, method: pick(d, "GET", "GET", "POST", "PUT", "HEAD", "DELETE"), keeps: !d.one(6), persists: !d.one(6),
		status: pick(d, 200, 200, 200, 201, 404, 500), announce: -1, asked: -1, answered: -1,
	}
	switch {
	case d.one(12) && c.feature != bounded:
		t.upgrade(d)
		return t
	case d.one(10):
		t.old = true
	}
	t.drawRequest(d)
	t.drawAnswer(d)
	// What a backend does without having said so does harm if the next request is quicker.
	alone := c.feature != bounded
	t.shuts = t.answer.framing == untilClose || t.persists && alone && d.one(10)
	if t.persists && !t.shuts && alone && d.one(12) {
		t.surplus = pick(d, "x", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
		t.answer.all = append(t.answer.all, t.surplus...)
	}
	if last := t.answer.last(); last >= t.answer.head && t.surplus == "" && d.one(8) {
		t.breakOff(d)
	}
	switch {
	case !t.repeatable():
	case c.feature == retrying:
		t.fails = d.IntN(4)
	case c.feature == hedging && d.one(3):
		t.hangs, t.late = true, d.one(3)
	}
	if t.fails > 0 || t.hangs {
		t.request.whole()
	}
	return t
}

// breakOff has the backend do so. What only a reset tells the proxy of, or the client, comes
// through before.
func (t *trade) breakOff(d draw) {
	t.breaks, t.shuts = pick(d, breaksNow, breaksThen, breaksHard), true
	if t.outward() == untilClose && t.breaks == breaksNow {
		t.breaks = breaksThen
	}
	if t.answer.framing == untilClose {
		t.breaks = breaksHard
	}
	at := max(d.cut(t.answer.head, len(t.answer.all)), t.answer.head)
	t.answer.breakOff(min(at, t.answer.last()))
}

// repeatable says whether the request is kept for another attempt.
func (t *trade) repeatable() bool {
	return t.method != "POST" && !t.expects && t.request.framing != chunked && len(t.request.all) < 7000
}

// upgrade makes it a request to go on as a WebSocket.
func (t *trade) upgrade(d draw) {
	t.method, t.upgrades, t.status, t.keeps = "GET", true, http.StatusSwitchingProtocols, true
	t.request = d.newWire("GET "+t.path+" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", untilClose, d.size(0))
	t.answer = d.newWire("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", untilClose, d.size(0))
	t.shuts = true
}

// padding draws a field that makes heads differ in size.
func padding(d draw) string {
	if d.one(2) {
		return ""
	}
	return "X-Pad: " + strings.Repeat("p", d.IntN(3000)) + "\r\n"
}

func (t *trade) drawRequest(d draw) {
	version := "HTTP/1.1"
	if t.old {
		version = "HTTP/1.0"
	}
	lines := fmt.Sprintf("%s %s %s\r\nHost: a\r\n%s%s", t.method, t.path, version, padding(d), t.connection())
	framing := noBody
	if t.method == "POST" || t.method == "PUT" || d.one(10) {
		framing = pick(d, counted, counted, chunked)
	}
	if framing == chunked && t.old {
		framing = counted
	}
	size := 0
	if framing != noBody {
		size = d.size(len(lines))
	}
	if size > 0 && !t.old && d.one(4) {
		t.expects, t.waits = true, d.one(2)
		lines += "Expect: 100-continue\r\n"
	}
	t.request = d.newWire(lines, framing, size)
}

// connection is what the request says of it.
func (t *trade) connection() string {
	switch {
	case t.old && t.keeps:
		return "Connection: keep-alive\r\n"
	case !t.old && !t.keeps:
		return "Connection: close\r\n"
	}
	return ""
}

func (t *trade) drawAnswer(d draw) {
	framing := pick(d, counted, counted, counted, chunked, chunked, untilClose)
	if t.method == "HEAD" || d.one(12) {
		framing = noBody
		if t.method != "HEAD" {
			t.status = pick(d, http.StatusNoContent, http.StatusNotModified)
		}
	}
	version, lines := "HTTP/1.1", ""
	switch {
	case t.persists && framing != untilClose:
	case framing != chunked && d.one(2):
		version = "HTTP/1.0"
	default:
		lines = "Connection: close\r\n"
	}
	t.persists = t.persists && framing != untilClose
	lines = fmt.Sprintf("%s %d Some Reason\r\n%s%s", version, t.status, lines, padding(d))
	size := 0
	switch {
	case framing != noBody:
		size = d.size(len(lines))
	case t.status != http.StatusNoContent && d.one(2):
		t.announce = d.size(0)
		lines += fmt.Sprintf("Content-Length: %d\r\n", t.announce)
	}
	t.answer = d.newWire(lines, framing, size)
}

// outward is how the client is told the end of the answer.
func (t *trade) outward() framing {
	switch {
	case t.answer.framing == noBody, t.answer.framing == counted, t.upgrades:
		return t.answer.framing
	case t.old:
		return untilClose
	}
	return chunked
}

// endsClient says whether the client's connection ends with it.
func (t *trade) endsClient() bool {
	return t.endIsTold() || t.breaks != never
}

// endIsTold says whether the head of the answer says so.
func (t *trade) endIsTold() bool { return !t.keeps || t.upgrades || t.outward() == untilClose }

// reusable says whether the backend's connection may carry another.
func (t *trade) reusable() bool {
	return t.persists && !t.shuts && t.surplus == "" && !t.upgrades
}

func (t *trade) String() string {
	return fmt.Sprintf("%s %s (HTTP/1.0 %t, keeps %t, behind %t, expects %t, waits %t, upgrades %t)\n"+
		"\trequest: %s; came: %d in %d attempts\n\tanswer: %d (announces %d, persists %t, shuts %t, surplus %q, breaks %d, fails %d, hangs %t, late %t): %s; came: %d, all %t, backend done %t",
		t.method, t.path, t.old, t.keeps, t.behind, t.expects, t.waits, t.upgrades,
		t.request, t.asked, t.attempts, t.status, t.announce, t.persists, t.shuts, t.surplus, t.breaks, t.fails, t.hangs, t.late, t.answer, t.answered, t.delivered, t.done)
}
