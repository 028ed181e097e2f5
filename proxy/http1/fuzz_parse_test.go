package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What is accepted must look like this, whatever the code says (RFC 9112, sections 2
// to 5): no other line ends, control bytes, or spaces.
var (
	strictFields   = "(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\\x00-\\x08\\x0a-\\x1f\\x7f]*\r\n)*\r\n$"
	strictRequest  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\\x00-\\x20\\x7f#]+ HTTP/1\\.[0-9]\r\n" + strictFields)
	strictResponse = regexp.MustCompile("^HTTP/1\\.[0-9] [1-9][0-9][0-9](?: [^\\x00-\\x08\\x0a-\\x1f\\x7f]*)?\r\n" + strictFields)
)

// latin makes of each byte one character, so that an expression sees bytes.
func latin(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

func addInputs(f *testing.F, kind string) {
	f.Helper()
	for _, data := range readInputs(f, kind) {
		f.Add(data)
	}
}

func withoutEmptyLines(b []byte) []byte {
	for bytes.HasPrefix(b, []byte("\r\n")) {
		b = b[2:]
	}
	return b
}

// FuzzRequest holds Parse against net/http: what it accepts must be strict by itself,
// and mean the same there. The differences on purpose: empty lines before a request
// are passed over here; a CONNECT's target is not looked at, since it is refused; a
// Trailer field is dropped, so that what it names does not matter; and lengths that
// are the same number, such as 5 and 05, are one; and a host in a target may have escapes,
// which are left as they are.
func FuzzRequest(f *testing.F) {
	addInputs(f, "requests")
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		r.Reset(&limits)
		n, err := r.Parse(data)
		if len(data) < 300 {
			checkSplits(t, newRequest, &limits, data)
		}
		if err != nil {
			checkPlace(t, &r.head, data, err)
		}
		if err != nil || n == 0 {
			return
		}
		head := data[:n]
		if !strictRequest.MatchString(latin(withoutEmptyLines(head))) {
			t.Fatalf("accepted %q", head)
		}
		if r.form == authorityForm {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(withoutEmptyLines(head))))
		if err != nil {
			if _, ok := r.find(trailer); !ok && r.lengths < 2 && !escapedAuthority.Match(head) {
				t.Fatalf("accepted %q, which net/http does not: %v", head, err)
			}
			return
		}
		compareRequest(t, &r, data, want)
	})
}

// checkPlace sees that the place of a fault is told on one short line.
func checkPlace(t *testing.T, h *head, data []byte, err error) {
	t.Helper()
	why := h.locate(data, err.(*Fault)).Error()
	if len(why) > 300 || strings.ContainsFunc(why, func(c rune) bool { return c < ' ' || c > '~' }) || !strings.HasPrefix(why, "line ") {
		t.Fatalf("got %q for what is wrong with %q", why, data)
	}
}

var escapedAuthority = regexp.MustCompile("(?i)^[^ ]+ https?://[^/? ]*%")

func compareRequest(t *testing.T, r *Request, b []byte, want *http.Request) {
	t.Helper()
	host := string(r.Host(b))
	if escapedAuthority.Match(withoutEmptyLines(b)) {
		want.Host = host
	}
	if string(r.Method(b)) != want.Method || string(r.target.of(b)) != want.RequestURI || host != want.Host || r.old != (want.ProtoMinor == 0) {
		t.Fatalf("got %s %s for %q, want %s %s for %q", r.Method(b), r.target.of(b), host, want.Method, want.RequestURI, want.Host)
	}
	length := r.length
	if r.chunked {
		length = -1
	}
	if length != want.ContentLength || r.chunked != slices.Equal(want.TransferEncoding, []string{"chunked"}) {
		t.Fatalf("got length %d, want %d %v; %q", length, want.ContentLength, want.TransferEncoding, b)
	}
	if len(host) == 0 && !r.old || r.chunked && r.lengths > 0 {
		t.Fatalf("accepted %q", b)
	}
	compareFields(t, &r.head, b, want.Header)
}

// compareFields looks at what net/http leaves as it is.
func compareFields(t *testing.T, h *head, b []byte, want http.Header) {
	t.Helper()
	got := http.Header{}
	for _, f := range h.fields {
		name := textproto.CanonicalMIMEHeaderKey(string(f.name.of(b)))
		got[name] = append(got[name], string(f.value.of(b)))
	}
	if got["Pragma"] != nil && got["Cache-Control"] == nil {
		want.Del("Cache-Control") // which net/http adds
	}
	for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection"} {
		delete(got, name)
		delete(want, name)
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for name := range got {
		if !slices.Equal(got[name], want[name]) {
			t.Fatalf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
}

// FuzzResponse does the same with responses. What has no body by its status is not
// compared by its length: net/http has its own view of that.
func FuzzResponse(f *testing.F) {
	addInputs(f, "responses")
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Response
		r.Reset(&limits)
		n, err := r.Parse(data)
		if len(data) < 300 {
			checkSplits(t, newResponse, &limits, data)
		}
		if err != nil {
			checkPlace(t, &r.head, data, err)
		}
		if err != nil || n == 0 {
			return
		}
		if _, err := r.framing([]byte("GET")); err != nil {
			return
		}
		head := data[:n]
		if !strictResponse.MatchString(latin(head)) {
			t.Fatalf("accepted %q", head)
		}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
		if err != nil {
			if _, ok := r.find(trailer); !ok && r.lengths < 2 && !r.headOnly([]byte("GET")) {
				t.Fatalf("accepted %q, which net/http does not: %v", head, err)
			}
			return
		}
		if r.status != want.StatusCode || r.old != (want.ProtoMinor == 0) {
			t.Fatalf("got %d, want %d", r.status, want.StatusCode)
		}
		compareFraming(t, &r, want)
		compareFields(t, &r.head, data, want.Header)
	})
}

func compareFraming(t *testing.T, r *Response, want *http.Response) {
	t.Helper()
	got, _ := r.framing([]byte("GET"))
	if r.status < 200 || r.status == 204 || r.status == 304 {
		if got != noBody {
			t.Fatalf("got framing %d for status %d, want no body", got, r.status)
		}
		return
	}
	expected := byCount
	switch {
	case slices.Equal(want.TransferEncoding, []string{"chunked"}):
		expected = byChunks
	case want.ContentLength < 0:
		expected = byClose
	case want.ContentLength == 0:
		expected = noBody
	}
	if got != expected || got == byCount && r.length != want.ContentLength {
		t.Fatalf("got framing %d, %d bytes; want %d, %d", got, r.length, expected, want.ContentLength)
	}
}

var chunksOfOurs = regexp.MustCompile("[0-9a-fA-F][ \t]+;|0[0-9a-fA-F]{16}")

// FuzzChunks holds the decoding of bodies in chunks against net/http: a body that is
// whole here must be so there, with the same content, trailers and end. The
// differences on purpose: a size may have zeros in front, and blanks before an
// extension (RFC 9112, section 7.1.1).
func FuzzChunks(f *testing.F) {
	for _, kind := range []string{"requests", "responses"} {
		for _, data := range readInputs(f, kind) {
			if _, body, ok := bytes.Cut(data, []byte("\r\n\r\n")); ok {
				f.Add(body)
			}
		}
	}
	f.Add([]byte("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\nrest"))
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8<<10 {
			return // net/http has other limits
		}
		if len(data) < 200 {
			checkChunkSplits(t, data)
		}
		content, trailers, rest, err := unchunk(data, &limits)
		if err != nil || chunksOfOurs.Match(data) {
			return
		}
		r := bufio.NewReaderSize(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(data)), 64<<10)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(content, want) {
			t.Fatalf("got %q, want %q, %v; %q", content, want, err, data)
		}
		if left, _ := io.ReadAll(r); !bytes.Equal(rest, left) {
			t.Fatalf("left %q, want %q; %q", rest, left, data)
		}
		compareTrailers(t, trailers, res.Trailer)
	})
}

// compareTrailers sees that those that are passed on are there, too.
func compareTrailers(t *testing.T, trailers []byte, want http.Header) {
	t.Helper()
	got, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(trailers, "\r\n"...)))).ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("cannot read %q: %v", trailers, err)
	}
	for name, values := range got {
		if !slices.Equal(values, want[name]) {
			t.Fatalf("%s: got %q, want %q", name, values, want[name])
		}
	}
	for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Authorization", "X-Forwarded-For"} {
		if got[name] != nil {
			t.Fatalf("passed on the trailer %s: %q", name, trailers)
		}
	}
}

// find returns the first field of that kind.
func (h *head) find(is known) (field, bool) {
	for _, f := range h.fields {
		if f.is == is {
			return f, true
		}
	}
	return field{}, false
}
