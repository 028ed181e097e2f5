package http1

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// readInputs gives the files of testdata/http by name.
func readInputs(t testing.TB, kind string) map[string][]byte {
	t.Helper()
	files, _ := filepath.Glob("../../testdata/http/" + kind + "/*.http")
	if len(files) == 0 {
		t.Fatal("no inputs")
	}
	all := map[string][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = data
	}
	return all
}

// limits are small enough for inputs to reach them.
func smallLimits() *Limits {
	return &Limits{Head: 300, Target: 40, Fields: 8, ChunkLine: 32, Trailers: 60, Interim: 2}
}

// outcome is all that Parse finds out, with words instead of offsets.
func (r *Request) outcome(b []byte, n int, err error) string {
	if err != nil || n == 0 {
		return fmt.Sprint(n, err)
	}
	said := fmt.Sprintf("%d %q %q %q %q %q %v", n, r.method.of(b), r.target.of(b), r.host.of(b), r.path.of(b), r.rest.of(b), r.form)
	said += fmt.Sprint(r.asterisk, r.expects, r.trailers, r.wantsWebSocket(b))
	return said + r.head.outcome(b)
}

func (r *Response) outcome(b []byte, n int, err error) string {
	if err != nil || n == 0 {
		return fmt.Sprint(n, err)
	}
	return fmt.Sprintf("%d %d %q %v", n, r.status, r.reason.of(b), r.websocket) + r.head.outcome(b)
}

func (h *head) outcome(b []byte) string {
	said := fmt.Sprint(h.lengths, h.length, h.encodings, h.chunked, h.close, h.keepAlive, h.upgrades, h.named, h.options, h.old, h.persists())
	for _, f := range h.fields {
		said += fmt.Sprintf(" %q:%q=%d", f.name.of(b), f.value.of(b), f.is)
	}
	return said
}

// parser is a Request or a Response.
type parser interface {
	Parse(b []byte) (int, error)
	outcome(b []byte, n int, err error) string
}

func newRequest(limits *Limits) parser {
	r := new(Request)
	r.Reset(limits)
	return r
}

func newResponse(limits *Limits) parser {
	r := new(Response)
	r.Reset(limits)
	return r
}

// parseInParts parses b as it grows to these lengths, each time at another place.
func parseInParts(p parser, b []byte, ends ...int) string {
	for _, end := range append(ends, len(b)) {
		part := bytes.Clone(b[:end])
		if n, err := p.Parse(part); n > 0 || err != nil {
			said := p.outcome(part, n, err)
			clear(part)
			return said
		}
		clear(part) // who keeps a slice of it will notice
	}
	return p.outcome(b, 0, nil)
}

func checkSplits(t *testing.T, make func(*Limits) parser, limits *Limits, data []byte) {
	t.Helper()
	whole := parseInParts(make(limits), data)
	single := make(limits)
	var all []int
	for i := range data {
		all = append(all, i)
		if got := parseInParts(make(limits), data, i); got != whole {
			t.Fatalf("cut at %d: got %s, want %s; %q", i, got, whole, data)
		}
	}
	if got := parseInParts(single, data, all...); got != whole {
		t.Fatalf("byte by byte: got %s, want %s; %q", got, whole, data)
	}
}

func TestParsingInParts(t *testing.T) {
	limits := DefaultLimits()
	kinds := map[string]func(*Limits) parser{"requests": newRequest, "responses": newResponse}
	for kind, make := range kinds {
		for name, data := range readInputs(t, kind) {
			t.Run(kind+"/"+name, func(t *testing.T) {
				data = data[:min(len(data), 1000)]
				checkSplits(t, make, &limits, data)
				checkSplits(t, make, smallLimits(), data)
			})
		}
	}
}

func TestLimitsInParts(t *testing.T) {
	limits := smallLimits()
	head := func(size int) string {
		const frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
		return frame[:len(frame)-4] + strings.Repeat("x", size-len(frame)) + "\r\n\r\n"
	}
	tests := map[string]struct {
		send string
		want error
	}{
		"head":             {head(limits.Head), nil},
		"head too large":   {head(limits.Head + 1), errLargeHead},
		"target":           {"GET /" + strings.Repeat("a", limits.Target-1) + " HTTP/1.1\r\nHost: a\r\n\r\n", nil},
		"target too long":  {"GET /" + strings.Repeat("a", limits.Target) + " HTTP/1.1\r\nHost: a\r\n\r\n", errLongTarget},
		"line too long":    {"GET /" + strings.Repeat("a", limits.Head), errLongTarget},
		"fields":           {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", limits.Fields-1) + "\r\n", nil},
		"too many fields":  {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", limits.Fields) + "\r\n", errManyFields},
		"first fault wins": {"GET / HTTP/1.1\r\nExpect: x\r\nHost: a\r\nX : y\r\n\r\n", errName},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRequest(limits)
			if _, err := r.Parse([]byte(test.send)); err != test.want && (err != nil || test.want != nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			checkSplits(t, newRequest, limits, []byte(test.send))
		})
	}
}

// A head must be taken for the same whatever comes behind it.
func TestWhatFollowsAHeadDoesNotMatter(t *testing.T) {
	limits := DefaultLimits()
	for name, data := range readInputs(t, "requests") {
		r := newRequest(&limits)
		n, err := r.Parse(data)
		if err != nil || n == 0 {
			continue
		}
		want := r.outcome(data, n, nil)
		for _, tail := range []string{"", "\r\n", "\n", " x", "GET / HTTP/1.1\r\n", "\x00"} {
			b := append(slices.Clone(data[:n]), tail...)
			r := newRequest(&limits)
			n, err := r.Parse(b)
			if got := r.outcome(b, n, err); got != want {
				t.Errorf("%s: got %s before %q, want %s", name, got, tail, want)
			}
		}
	}
}

func TestLogins(t *testing.T) {
	for value, want := range map[string]login{
		"": noLogin, "Basic eA==": noLogin, "Bearer NTLM": noLogin, "NTL": noLogin, "Digest username=\"NTLM\"": noLogin,
		"NTLM": begins, "ntlm  TlRMTVNTUAABAAAA": begins, "Negotiate YIIG": begins, "NEGOTIATE TlRMTVNTUAABAAAA": begins, "Nego2 x": begins,
		"NTLM TlRMTVNTUAADAAAAGAAY": continues, "Negotiate TlRMTVNTUAADAAAA": continues, "negotiate  oYIBfzCC": continues, "Negotiate oXcwdaAD": continues,
		"Negotiate oAcw": begins,
	} {
		if got := loginOf([]byte(value)); got != want {
			t.Errorf("%q: got %d, want %d", value, got, want)
		}
	}
	limits := DefaultLimits()
	for head, want := range map[string]bool{
		"401 Unauthorized\r\nWWW-Authenticate: NTLM":                                                  true,
		"401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\nwww-authenticate: negotiate oYG2": true,
		"401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\", Negotiate":                          true,
		"407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM":                               true,
		"401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"NTLM\"":                                  false,
		"401 Unauthorized\r\nX-Authenticate: NTLM":                                                    false,
		"200 OK\r\nWWW-Authenticate: NTLM":                                                            false,
		"401 Unauthorized\r\nServer: a":                                                               false,
	} {
		var r Response
		r.Reset(&limits)
		b := []byte("HTTP/1.1 " + head + "\r\n\r\n")
		if _, err := r.Parse(b); err != nil {
			t.Fatal(err)
		}
		if got := r.challenges(b); got != want {
			t.Errorf("%q: got a challenge %t, want %t", head, got, want)
		}
	}
	var r Request
	r.Reset(&limits)
	if _, err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM\r\nAuthorization: Basic eA==\r\n\r\n")); err != nil || r.login != begins {
		t.Errorf("got %d, %v of two fields, want what belongs to the connection", r.login, err)
	}
}
