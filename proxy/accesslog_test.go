package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

// logged is a line of the access log.
type logged struct {
	Time        time.Time
	Node        string
	RequestID   string `json:"request_id"`
	Client      string
	Method      string
	Host        string
	Path        string
	Protocol    string
	Status      int
	BytesIn     int64 `json:"bytes_in"`
	BytesOut    int64 `json:"bytes_out"`
	Pool        string
	Backend     string
	Retries     int
	ConnectMS   float64 `json:"connect_ms"`
	FirstByteMS float64 `json:"first_byte_ms"`
	TotalMS     float64 `json:"total_ms"`
	End         string
	Reason      string
}

// same leaves out what no test can foretell.
func (l logged) same() logged {
	l.Time, l.ConnectMS, l.FirstByteMS, l.TotalMS, l.Reason = time.Time{}, 0, 0, 0, ""
	return l
}

// output is a Writer that can be read meanwhile.
type output struct {
	mu   sync.Mutex
	text []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	return len(p), nil
}

func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Split(strings.TrimSuffix(string(o.text), "\n"), "\n")[:bytes.Count(o.text, []byte("\n"))]
}

// openLog opens an access log that is closed in the end.
func openLog(t testing.TB, file string, out io.Writer) (*AccessLog, *atomic.Int64) {
	t.Helper()
	dropped := new(atomic.Int64)
	l, err := OpenAccessLog(AccessLogConfig{
		File: file, Stdout: out, Node: `lb"1`, Log: slog.New(slog.DiscardHandler),
		Dropped: func(n int) { dropped.Add(int64(n)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(t.Context()) })
	return l, dropped
}

func read(t *testing.T, line string) (l logged) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return l
}

// startLogged starts a proxy with that log. Each of its backends does one thing well or
// badly, and gets the requests for the host of its name.
func startLogged(t *testing.T, access *AccessLog) string {
	t.Helper()
	first := func(answer string) func(net.Conn, string) {
		return func(conn net.Conn, _ string) { io.WriteString(conn, answer) }
	}
	ok, _ := startRaw(t, "ok", first("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"))
	cut, _ := startRaw(t, "cut", first("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"))
	odd, _ := startRaw(t, "odd", first("what?\r\n\r\n"))
	stuck, _ := startRaw(t, "stuck", func(conn net.Conn, _ string) { io.Copy(io.Discard, conn) })
	half, _ := startRaw(t, "half", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
		io.Copy(io.Discard, conn)
	})
	socket, _ := startRaw(t, "socket", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
		io.Copy(conn, conn)
	})
	var pools []*state.Pool
	var routes []state.Route
	for _, b := range []state.Backend{ok, cut, odd, stuck, half, socket, refusing(t, "none")} {
		pool := poolOf(b.Name, b)
		pool.Timeouts.Request = state.Duration(300 * time.Millisecond)
		pools, routes = append(pools, pool), append(routes, state.Route{Host: b.Name, Path: "/", Pool: b.Name})
	}
	pools = append(pools, poolOf("two", refusing(t, "a"), ok), poolOf("empty"))
	routes = append(routes, state.Route{Host: "two", Path: "/", Pool: "two"}, state.Route{Host: "empty", Path: "/", Pool: "empty"})
	_, url := startProxyWith(t, Config{AccessLog: access, HeaderTimeout: 300 * time.Millisecond}, viewOf(routes, pools...))
	return url
}

func TestAccessLog(t *testing.T) {
	var out output
	access, _ := openLog(t, "-", &out)
	url := startLogged(t, access)
	tests := map[string]struct {
		send string
		want logged
	}{
		"ok":                  {"GET /a%20b?q=1 HTTP/1.1\r\nHost: ok\r\nX-Request-Id: r1\r\n\r\n", logged{Method: "GET", Host: "ok", Path: "/a%20b", Status: 200, BytesOut: 5, Pool: "ok", Backend: "ok", End: "ok"}},
		"odd bytes":           {"GET /\"\\caf\xe9 HTTP/1.1\r\nHost: ok\r\n\r\n", logged{Method: "GET", Host: "ok", Path: "/\"\\caf\ufffd", Status: 200, BytesOut: 5, Pool: "ok", Backend: "ok", End: "ok"}},
		"old":                 {"GET / HTTP/1.0\r\nHost: ok\r\n\r\n", logged{Method: "GET", Host: "ok", Path: "/", Protocol: "HTTP/1.0", Status: 200, BytesOut: 5, Pool: "ok", Backend: "ok", End: "ok"}},
		"small body":          {"POST / HTTP/1.1\r\nHost: ok\r\nContent-Length: 3\r\n\r\nabc", logged{Method: "POST", Host: "ok", Path: "/", Status: 200, BytesIn: 3, BytesOut: 5, Pool: "ok", Backend: "ok", End: "ok"}},
		"body in chunks":      {"POST / HTTP/1.1\r\nHost: ok\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", logged{Method: "POST", Host: "ok", Path: "/", Status: 200, BytesIn: 3, BytesOut: 5, Pool: "ok", Backend: "ok", End: "ok"}},
		"retry":               {"GET / HTTP/1.1\r\nHost: two\r\n\r\n", logged{Method: "GET", Host: "two", Path: "/", Status: 200, BytesOut: 5, Pool: "two", Backend: "ok", Retries: 1, End: "ok"}},
		"websocket":           {"GET / HTTP/1.1\r\nHost: socket\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc", logged{Method: "GET", Host: "socket", Path: "/", Status: 101, BytesIn: 3, BytesOut: 5, Pool: "socket", Backend: "socket", End: "ok"}},
		"no route":            {"GET / HTTP/1.1\r\nHost: other\r\n\r\n", logged{Method: "GET", Host: "other", Path: "/", Status: 404, BytesOut: 32, End: "no_route"}},
		"no backend":          {"GET / HTTP/1.1\r\nHost: empty\r\n\r\n", logged{Method: "GET", Host: "empty", Path: "/", Status: 503, BytesOut: 24, Pool: "empty", End: "no_backend"}},
		"unreachable":         {"GET / HTTP/1.1\r\nHost: none\r\n\r\n", logged{Method: "GET", Host: "none", Path: "/", Status: 502, BytesOut: 12, Pool: "none", Backend: "none", End: "unreachable"}},
		"method":              {"CONNECT ok:80 HTTP/1.1\r\nHost: ok\r\n\r\n", logged{Method: "CONNECT", Host: "ok", Status: 405, BytesOut: 19, End: "method"}},
		"malformed":           {"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n", logged{Status: 400, BytesOut: 73, End: "bad_request"}},
		"malformed body":      {"POST / HTTP/1.1\r\nHost: stuck\r\nTransfer-Encoding: chunked\r\n\r\nx", logged{Method: "POST", Host: "stuck", Path: "/", Status: 400, BytesOut: 12, Pool: "stuck", Backend: "stuck", End: "bad_request"}},
		"half a head":         {"GET / HTT", logged{Status: 408, BytesOut: 33, End: "client_timeout"}},
		"half a body":         {"POST / HTTP/1.1\r\nHost: stuck\r\nContent-Length: 9\r\n\r\nabc", logged{Method: "POST", Host: "stuck", Path: "/", Status: 408, BytesIn: 3, BytesOut: 16, Pool: "stuck", Backend: "stuck", End: "client_timeout"}},
		"no answer":           {"GET / HTTP/1.1\r\nHost: stuck\r\n\r\n", logged{Method: "GET", Host: "stuck", Path: "/", Status: 504, BytesOut: 16, Pool: "stuck", Backend: "stuck", End: "backend_timeout"}},
		"half an answer":      {"GET / HTTP/1.1\r\nHost: half\r\n\r\n", logged{Method: "GET", Host: "half", Path: "/", Status: 200, BytesOut: 5, Pool: "half", Backend: "half", End: "backend_timeout"}},
		"answer cut short":    {"GET / HTTP/1.1\r\nHost: cut\r\n\r\n", logged{Method: "GET", Host: "cut", Path: "/", Status: 200, BytesOut: 5, Pool: "cut", Backend: "cut", End: "cut"}},
		"answer without head": {"GET / HTTP/1.1\r\nHost: odd\r\n\r\n", logged{Method: "GET", Host: "odd", Path: "/", Status: 502, BytesOut: 12, Pool: "odd", Backend: "odd", End: "bad_answer"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := len(out.lines())
			conn := dial(t, url)
			io.WriteString(conn, test.send)
			if name != "half a head" && name != "half a body" {
				conn.(*net.TCPConn).CloseWrite()
			}
			io.ReadAll(conn)
			eventually(t, "there is a line", func() bool { return len(out.lines()) > before })
			got := read(t, out.lines()[before])
			test.want.Node, test.want.Client = `lb"1`, "127.0.0.1"
			if test.want.Protocol == "" {
				test.want.Protocol = "HTTP/1.1"
			}
			if !regexp.MustCompile(`^(r1|[0-9a-f]{32})$`).MatchString(got.RequestID) {
				t.Errorf("got the id %q", got.RequestID)
			}
			test.want.RequestID = got.RequestID
			if got.same() != test.want {
				t.Errorf("got  %+v\nwant %+v", got.same(), test.want)
			}
			if time.Since(got.Time) > patience || got.FirstByteMS > got.TotalMS || strings.HasSuffix(got.End, "_timeout") && got.Method != "" && got.TotalMS < 100 {
				t.Errorf("times are not right: %+v", got)
			}
			if (got.End == "ok") != (got.Reason == "") {
				t.Errorf("got the reason %q for %s", got.Reason, got.End)
			}
			if (got.End == "ok") != (got.FirstByteMS > 0) && got.Status != 200 {
				t.Errorf("got the first byte at %v ms", got.FirstByteMS)
			}
		})
	}
}

// The fields stand in the order that the documentation has them in.
func TestAccessLogFields(t *testing.T) {
	want := strings.Fields("time node request_id client method host path protocol status bytes_in bytes_out pool backend retries connect_ms first_byte_ms total_ms end reason")
	var got []string
	var l line
	l.write(&entry{}, []byte(`""`))
	for _, field := range regexp.MustCompile(`[{,]"(\w+)":`).FindAllSubmatch(l.text, -1) {
		got = append(got, string(field[1]))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Who left is told apart from who was too slow.
func TestAccessLogOfClients(t *testing.T) {
	for _, large := range []bool{false, true} { // a large body passes through the kernel only
		var out output
		access, _ := openLog(t, "-", &out)
		b, _ := startRaw(t, "endless", func(conn net.Conn, _ string) {
			if large {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
			} else {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			}
			io.Copy(conn, zeros{})
		})
		view := withTimeout(500*time.Millisecond, b)
		_, url := startProxyWith(t, Config{AccessLog: access}, view)
		for i, end := range []string{"client_timeout", "client_left"} {
			conn := dial(t, url)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			bufio.NewReader(conn).ReadByte()
			if end == "client_left" {
				reset(conn)
			}
			eventually(t, "there is a line", func() bool { return len(out.lines()) > i })
			if got := read(t, out.lines()[i]); got.End != end || got.Status != 200 || got.BytesOut == 0 && end == "client_timeout" {
				t.Errorf("large %t: got %+v, want %s", large, got, end)
			}
		}
	}
}

func TestQuotedIsJSON(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	for _, text := range []string{
		"", "plain", string(all), "\xff", "é", "é\xc3", "\xe2\x82", "€€", "𝄞", "\xf0\x9d\x84", "\xed\xa0\x80", "\ufffd", "a\u2028b", strings.Repeat("\"", 1000),
	} {
		standard, _ := json.Marshal(text)
		var want, got string
		if err := json.Unmarshal(standard, &want); err != nil {
			t.Fatal(err)
		}
		quoted := appendQuoted(nil, []byte(text))
		if err := json.Unmarshal(quoted, &got); err != nil || got != want {
			t.Errorf("%q: got %q as %s, %v; want %q", text, got, quoted, err, want)
		}
	}
}

func FuzzQuoted(f *testing.F) {
	f.Add("a\"\\\x00\xffé")
	f.Fuzz(func(t *testing.T, text string) {
		standard, _ := json.Marshal(text)
		var want, got string
		json.Unmarshal(standard, &want)
		if err := json.Unmarshal(appendQuoted(nil, text), &got); err != nil || got != want {
			t.Fatalf("%q: got %q, %v; want %q", text, got, err, want)
		}
	})
}

func TestTimesOfLines(t *testing.T) {
	var l line
	for _, want := range []string{
		"2026-02-03T04:05:06.000Z", "2026-02-03T04:05:06.999Z", "2026-02-03T04:05:07.010Z", "2026-02-03T04:05:06.123Z", "1970-01-01T00:00:00.001Z", "1969-12-31T23:59:59.500Z",
	} {
		at, err := time.Parse(time.RFC3339Nano, want)
		if err != nil {
			t.Fatal(err)
		}
		zoned := at.In(time.FixedZone("elsewhere", 3600))
		if got := string(l.appendTime(nil, zoned)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestMillis(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000", 999: "0.000", time.Microsecond: "0.001", 12345 * time.Microsecond: "12.345", time.Minute + 10*time.Microsecond: "60000.010", -time.Second: "0.000",
	} {
		if got := string(appendMillis(nil, d)); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

// gate is a Writer that takes nothing until it is opened.
type gate struct {
	output
	open chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.output.Write(p)
}

// When nothing takes the lines, requests do not wait: lines are dropped, and counted.
func TestAccessLogThatFallsBehind(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	access, dropped := openLog(t, "-", g)
	e := &entry{path: bytes.Repeat([]byte("x"), 1000)}
	const lines = 10_000
	for range lines {
		access.add(e)
	}
	if dropped.Load() == 0 {
		t.Error("nothing was dropped although there is no room for all")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := access.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v for a log that nothing takes, want an error", err)
	}
	close(g.open)
	if err := access.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	written := g.lines()
	if len(written)+int(dropped.Load()) != lines {
		t.Errorf("got %d written and %d dropped, want %d together", len(written), dropped.Load(), lines)
	}
	for _, line := range written {
		read(t, line)
	}
}

// full is a Writer that takes a few bytes once and then fails until it is emptied.
type full struct {
	output
	room atomic.Int64
}

func (f *full) Write(p []byte) (int, error) {
	n := min(int64(len(p)), f.room.Load())
	f.room.Add(-n)
	f.output.Write(p[:n])
	if int(n) < len(p) {
		return int(n), errors.New("no space left")
	}
	return int(n), nil
}

func TestAccessLogThatCannotBeWritten(t *testing.T) {
	f := &full{}
	f.room.Store(100) // half a line
	access, dropped := openLog(t, "-", f)
	access.add(&entry{})
	eventually(t, "the line is given up", func() bool { return dropped.Load() == 1 })
	access.add(&entry{})
	eventually(t, "the next, too", func() bool { return dropped.Load() == 2 })
	f.room.Store(1 << 20)
	access.add(&entry{outcome: outcome{code: 200}})
	access.Close(t.Context())
	lines := f.lines()
	if len(lines) != 2 || read(t, lines[1]).Status != 200 {
		t.Errorf("got %q, want a broken line and a whole one", lines)
	}
}

func TestAccessLogIsReopened(t *testing.T) {
	dir := t.TempDir()
	file, old := filepath.Join(dir, "access.log"), filepath.Join(dir, "access.log.1")
	access, dropped := openLog(t, file, nil)
	access.add(&entry{outcome: outcome{code: 200}})
	if err := os.Rename(file, old); err != nil {
		t.Fatal(err)
	}
	access.Reopen()
	eventually(t, "there is a new file", func() bool { _, err := os.Stat(file); return err == nil })
	access.add(&entry{outcome: outcome{code: 404}})
	if err := access.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{old: 200, file: 404} {
		text, err := os.ReadFile(name)
		if err != nil || bytes.Count(text, []byte("\n")) != 1 || read(t, string(text)).Status != want {
			t.Errorf("%s: got %q, %v; want one line, with status %d", name, text, err, want)
		}
	}
	if dropped.Load() != 0 {
		t.Errorf("got %d lines dropped, want none", dropped.Load())
	}
}

func TestAccessLogThatCannotBeOpened(t *testing.T) {
	_, err := OpenAccessLog(AccessLogConfig{File: filepath.Join(t.TempDir(), "none", "access.log")})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "-access-log") {
		t.Errorf("got %v, want what is wrong and with which flag", err)
	}
}

// With the log open a request makes nothing for the collector.
func TestAccessLogAllocatesNothing(t *testing.T) {
	access, _ := openLog(t, "-", io.Discard)
	e := &entry{began: time.Now(), path: []byte("/a/b"), client: []byte("192.0.2.1"), outcome: outcome{pool: "web", backend: "web-1"}}
	access.add(e)
	if got := testing.AllocsPerRun(1000, func() { e.end = endOf(nil); access.add(e) }); got != 0 {
		t.Errorf("got %v allocations for a line, want 0", got)
	}
}

func BenchmarkAccessLog(b *testing.B) {
	access, _ := openLog(b, "-", io.Discard)
	e := &entry{began: time.Now(), path: []byte("/a/b"), client: []byte("192.0.2.1"), outcome: outcome{pool: "web", backend: "web-1", end: endOK}}
	b.ReportAllocs()
	for b.Loop() {
		access.add(e)
	}
}
