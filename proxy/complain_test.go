package proxy

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"lbnode/state"
)

// logTo returns a log whose lines from that level on go to out.
func logTo(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
}

// What is wrong with an answer, and where, is told once by the log, and by the access log of
// each request; what may be secret is not.
func TestBadAnswersAreExplained(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := map[string]struct{ answer, want string }{
		"name":           {ok + "Server: x\r\nSet-Cookie : s3cr3t=1\r\n\r\n", `line 3 ("Set-Cookie "): a field name is not a token directly before a colon`},
		"value":          {ok + "Set-Cookie: s3cr3t\x01\r\n\r\n", `line 2 ("Set-Cookie"): a field value has a control character`},
		"no name":        {ok + ": s3cr3t\r\n\r\n", `line 2: a field name is not a token directly before a colon`},
		"no colon":       {ok + "s3cr3t\r\n\r\n", `line 2: a field name is not a token directly before a colon`},
		"folded":         {ok + "Set-Cookie: a\r\n s3cr3t: 1\r\n\r\n", `line 3: a header line begins with a space`},
		"folded, blank":  {ok + "Set-Cookie: a\r\n \r\n\r\n", `line 3: a header line begins with a space`},
		"bare LF":        {ok + "Set-Cookie: s3cr3t\nX: y\r\n\r\n", `line 2 ("Set-Cookie"): a line does not end with CR LF`},
		"length":         {ok + "X: y\r\nContent-Length: s3cr3t\r\nA: b\r\n\r\n", `line 3 ("Content-Length"): the length is no number, or there are two`},
		"lengths":        {ok + "Content-Length: 1\r\nX: y\r\ncontent-length: 2\r\n\r\n", `line 4 ("content-length"): the length is no number, or there are two`},
		"encoding":       {ok + "Transfer-Encoding: s3cr3t\r\n\r\n", `line 2 ("Transfer-Encoding"): the transfer encoding is not chunked alone`},
		"options":        {ok + "Connection: " + strings.Repeat("s3cr3t,", 40) + "\r\n\r\n", `line 2 ("Connection"): the Connection field has too many options`},
		"status line":    {"SSH-2.0-dropbear\r\n", `line 1 ("SSH-2.0-dropbear"): the status line is not VERSION SP STATUS`},
		"odd bytes":      {"\x16\x03\x01\"\x00\r\n", `line 1 ("\x16\x03\x01\"\x00"): the status line is not VERSION SP STATUS`},
		"long line":      {"ICY 200 " + strings.Repeat("x", 30) + "s3cr3t\r\n", `line 1 ("ICY 200 ` + strings.Repeat("x", 24) + `"): the status line is not VERSION SP STATUS`},
		"empty line":     {"\r\n", `line 1: the status line is not VERSION SP STATUS`},
		"many fields":    {ok + strings.Repeat("X: s3cr3t\r\n", 1001) + "\r\n", `line 1002 ("X"): the header has too many fields`},
		"switch":         {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", `it switches to a protocol that was not asked for`},
		"second interim": {"HTTP/1.1 103 Early Hints\r\n\r\n" + ok + "Bad Name: s3cr3t\r\n\r\n", `line 2 ("Bad Name"): a field name is not a token directly before a colon`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var lines, warnings output
			access, _ := openLog(t, "-", &lines)
			backend, _ := startRaw(t, "odd", func(conn net.Conn, _ string) { io.WriteString(conn, test.answer) })
			_, url := startProxy(t, Config{AccessLog: access, Log: logTo(&warnings, slog.LevelInfo)}, backend)
			const requests = 5
			for range requests {
				talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			}
			eventually(t, "there is a line for each", func() bool { return len(lines.lines()) == requests })
			for _, line := range lines.lines() {
				if got, want := read(t, line), "the answer cannot be passed on: "+test.want; got.End != "bad_answer" || got.Reason != want {
					t.Errorf("got %s, %q; want bad_answer, %q", got.End, got.Reason, want)
				}
			}
			told := warnings.lines()
			if len(told) != 1 || !strings.Contains(told[0], "level=WARN") || !strings.Contains(told[0], "backend=odd") || !strings.Contains(told[0], "line") && name != "switch" {
				t.Errorf("got %q, want one warning", told)
			}
			if all := strings.Join(append(told, lines.lines()...), ""); strings.Contains(all, "s3cr3t") {
				t.Errorf("got %q, which tells what may be secret", all)
			}
		})
	}
}

// The same with what fails in other ways, and with requests.
func TestFailuresAreExplained(t *testing.T) {
	lost, _ := startRaw(t, "lost", func(net.Conn, string) {})
	cut, _ := startRaw(t, "cut", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy")
	})
	const get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	tests := map[string]struct {
		send      string
		backend   *state.Backend
		end, want string
		level     string
	}{
		"lost":        {strings.Replace(get, "GET", "POST", 1), &lost, "lost", "the connection was lost before an answer came: EOF", "WARN"},
		"cut":         {get, &cut, "cut", "the answer was cut short: a chunk is malformed", "WARN"},
		"no request":  {"GET /?s3cr3t\r\n\r\n", &lost, "bad_request", `line 1 ("GET /"): the request line is not METHOD SP TARGET SP VERSION`, "INFO"},
		"no host":     {"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: s3cr3t\r\n\r\n", &lost, "bad_request", `line 4 ("host"): the host is missing, repeated or no host`, "INFO"},
		"target":      {"\r\nGET http://a@b/?s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n", &lost, "bad_request", `line 1 ("GET http://a@b/"): the target's host is no host`, "INFO"},
		"expectation": {"GET / HTTP/1.1\r\nHost: a\r\nExpect: s3cr3t\r\n\r\n", &lost, "bad_request", `line 3 ("Expect"): the expectation is unknown`, "INFO"},
		"empty lines": {"\r\n\r\nGET / HTTP/1.1\r\nCookie : s3cr3t\r\n\r\n", &lost, "bad_request", `line 2 ("Cookie "): a field name is not a token directly before a colon`, "INFO"},
		"no backend":  {get, nil, "no_backend", "no backend is available", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var lines, told output
			access, _ := openLog(t, "-", &lines)
			var backends []state.Backend
			if test.backend != nil {
				backends = append(backends, *test.backend)
			}
			_, url := startProxy(t, Config{AccessLog: access, Log: logTo(&told, slog.LevelInfo)}, backends...)
			for range 3 {
				talk(t, url, test.send)
			}
			eventually(t, "there is a line for each", func() bool { return len(lines.lines()) == 3 })
			for _, line := range lines.lines() {
				if got := read(t, line); got.End != test.end || got.Reason != test.want {
					t.Errorf("got %s, %q; want %s, %q", got.End, got.Reason, test.end, test.want)
				}
			}
			if got := told.lines(); test.level == "" && len(got) > 0 || test.level != "" && (len(got) != 1 || !strings.Contains(got[0], "level="+test.level)) {
				t.Errorf("got %q, want one line of level %q", got, test.level)
			}
			if all := strings.Join(told.lines(), ""); strings.Contains(all, "s3cr3t") {
				t.Errorf("got %q, which tells what may be secret", all)
			}
		})
	}
}
