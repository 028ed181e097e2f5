package http1

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// second is what a backend answers once its first connection has had its answer.
const second = "HTTP/1.1 299 Second\r\nContent-Length: 6\r\n\r\nsecond"

// asked are the first requests of FuzzAnswersToClient. Another follows at once.
var asked = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
	"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
}

// FuzzAnswersToClient has a backend answer with any bytes, and sees that the client
// finds at most one answer in what it gets, which is the one that is in the bytes,
// and behind it that to its next request, or the end.
func FuzzAnswersToClient(f *testing.F) {
	for _, data := range readInputs(f, "responses") {
		for how := range asked {
			f.Add(data, byte(how))
		}
		f.Add(data, byte(len(asked)))
	}
	limits := DefaultLimits()
	r := startRig(f, limits)
	f.Fuzz(func(t *testing.T, data []byte, how byte) {
		if len(data) > largeBuffer/2 {
			return // not surely there at once
		}
		ask := asked[int(how)%len(asked)]
		ends := how/byte(len(asked))%2 == 1
		finish := r.use(t, func(conn net.Conn, number int) { answerWith(conn, number, data, ends) })
		send := []byte(ask + "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		got, broken := r.talk(t, send, len(send), false)
		finish()
		checkAnswer(t, data, got, broken, ask, limits.Interim)
	})
}

// answerWith answers the first request of the first connection with data, and all
// others with second. Without an end behind data, it waits a little for another
// request.
func answerWith(conn net.Conn, number int, data []byte, ends bool) {
	r := bufio.NewReader(conn)
	for first := number == 1; ; first = false {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		if !first {
			io.WriteString(conn, second)
			continue
		}
		conn.Write(data)
		if ends {
			return
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	}
}

// checkAnswer reads what the client got, and whether it broke off.
func checkAnswer(t *testing.T, data, got []byte, broken bool, ask string, interim int) {
	t.Helper()
	method, _, _ := strings.Cut(ask, " ")
	r := bufio.NewReaderSize(bytes.NewReader(got), 64<<10)
	for final := 0; ; {
		if _, err := r.Peek(1); err != nil {
			return
		}
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q was passed on as %q, which cannot be read: %v", data, got, err)
		}
		switch {
		case res.StatusCode == http.StatusSwitchingProtocols && res.Header.Get("Upgrade") == "websocket" && strings.Contains(ask, "websocket"):
			return // what follows is another protocol's
		case res.StatusCode == http.StatusSwitchingProtocols:
			t.Fatalf("%q was passed on as %q, want no other protocol", data, got)
		case res.StatusCode < 200:
			if interim--; interim < 0 || strings.Contains(ask, "HTTP/1.0") {
				t.Fatalf("%q was passed on as %q, with too many interim answers", data, got)
			}
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || broken && res.ContentLength < 0 && res.TransferEncoding == nil {
			if left, _ := io.ReadAll(r); len(left) > 0 {
				t.Fatalf("%q was passed on as %q, which goes on behind what is broken", data, got)
			}
			return
		}
		switch final++; final {
		case 1:
			checkFirst(t, data, got, res, method, string(body))
			method = http.MethodGet
		case 2:
			if res.StatusCode != 299 && res.StatusCode != 502 || res.StatusCode == 299 && string(body) != "second" {
				t.Fatalf("%q was passed on as %q, want the answer of the second request behind it", data, got)
			}
		default:
			t.Fatalf("%q was passed on as %q, want no more than two answers", data, got)
		}
	}
}

// checkFirst sees that an answer which ends cleanly is the one that is in the data, or
// our own.
func checkFirst(t *testing.T, data, got []byte, res *http.Response, method, body string) {
	t.Helper()
	want := finalAnswer(data, method)
	if want == nil || chunksOfOurs.Match(data) {
		headOnly := method == http.MethodHead || res.StatusCode == 204 || res.StatusCode == 304 // whatever its lengths say
		if res.StatusCode != 502 && !chunksOfOurs.Match(data) && !(headOnly && body == "") {
			t.Fatalf("%q was passed on as %q, want 502", data, got)
		}
		return
	}
	expected, err := io.ReadAll(want.Body)
	if res.StatusCode == 502 && want.StatusCode != 502 {
		return // there is more that is refused
	}
	if res.StatusCode != want.StatusCode || body != string(expected) || err != nil {
		t.Fatalf("%q was passed on as %q; want %d %q, %v", data, got, want.StatusCode, expected, err)
	}
}

// finalAnswer is what net/http takes for the answer.
func finalAnswer(data []byte, method string) *http.Response {
	r := bufio.NewReaderSize(bytes.NewReader(data), 64<<10)
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil
		}
		if res.StatusCode >= 200 {
			return res
		}
	}
}
