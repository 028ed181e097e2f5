package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/state"
)

const inputs = "../testdata/http/"

// input is a line of a table in testdata/http: some words, and what must and must not
// be in what the other side gets.
type input struct {
	name     string
	data     string
	words    []string
	has, not []string
}

// readInputs reads a table whose lines have so many words after the name.
func readInputs(t *testing.T, table string, words int) []input {
	t.Helper()
	all, err := os.ReadFile(inputs + table + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []input
	for line := range strings.Lines(string(all)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		list = append(list, readInput(t, table, line, words))
	}
	if files, _ := filepath.Glob(inputs + table + "/*.http"); len(files) != len(list) {
		t.Errorf("got %d lines for %d files in %s, want one for each", len(list), len(files), table)
	}
	return list
}

func readInput(t *testing.T, table, line string, words int) input {
	t.Helper()
	var in input
	var word string
	for range words + 1 {
		word, line, _ = strings.Cut(line, " ")
		line = strings.TrimLeft(line, " ")
		in.words = append(in.words, word)
	}
	in.name, in.words = in.words[0], in.words[1:]
	for line != "" {
		quoted, err := strconv.QuotedPrefix(line[1:])
		if err != nil {
			t.Fatalf("%s: cannot read %s: %v", in.name, line, err)
		}
		text, _ := strconv.Unquote(quoted)
		if line[0] == '+' {
			in.has = append(in.has, text)
		} else {
			in.not = append(in.not, text)
		}
		line = strings.TrimLeft(line[1+len(quoted):], " ")
	}
	data, err := os.ReadFile(inputs + table + "/" + in.name + ".http")
	if err != nil {
		t.Fatal(err)
	}
	in.data = string(data)
	return in
}

func (in *input) checkBytes(t *testing.T, got string) {
	t.Helper()
	for _, text := range in.has {
		if !strings.Contains(got, text) {
			t.Errorf("got %q, want %q in it", got, text)
		}
	}
	for _, text := range in.not {
		if strings.Contains(got, text) {
			t.Errorf("got %q, want no %q in it", got, text)
		}
	}
}

// witness is a backend that reads strictly, answers what it understands, and notes
// all bytes it gets.
type witness struct {
	mu       sync.Mutex
	got      []byte
	requests int
	broken   []error // what of it was no request
	conns    sync.WaitGroup
	end      func() // takes no more connections, and waits for those there are
}

func startWitness(t testing.TB) (*witness, state.Backend) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			w.conns.Go(func() { w.serve(conn) })
		}
	})
	w.end = func() { listener.Close(); accepting.Wait(); w.conns.Wait() }
	t.Cleanup(w.end)
	return w, backendAt("witness", listener.Addr())
}

func (w *witness) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(io.TeeReader(conn, w))
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		req, err := http.ReadRequest(r)
		if err == nil {
			if req.Header.Get("Expect") != "" {
				io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			_, err = io.Copy(io.Discard, req.Body)
		}
		w.note(err)
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

func (w *witness) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.broken = append(w.broken, err)
	} else {
		w.requests++
	}
}

func (w *witness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, p...)
	return len(p), nil
}

// answers reads what a client is sent, up to the number of answers or the end.
func answers(r *bufio.Reader, most int) (statuses []string) {
	for len(statuses) < most {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			break
		}
		statuses = append(statuses, strconv.Itoa(res.StatusCode))
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return append(statuses, "cut")
		}
	}
	return statuses
}

func endDirection(conn net.Conn) { conn.(*net.TCPConn).CloseWrite() }

// Every line of requests.txt.
func TestRequestInputs(t *testing.T) {
	for _, in := range readInputs(t, "requests", 3) {
		t.Run(in.name, func(t *testing.T) {
			w, b := startWitness(t)
			p, url := startProxy(t, Config{}, b)
			conn := dial(t, url)
			in.sendRequest(t, conn)
			conn.Close()
			shutdownNow(p) // ends connections to the backend, too
			w.end()
			in.checkBackend(t, w)
		})
	}
}

// sendRequest sends the input, and looks at what comes back and when it ends.
func (in *input) sendRequest(t *testing.T, conn net.Conn) {
	t.Helper()
	want, then := strings.Split(in.words[0], "|"), in.words[1]
	io.WriteString(conn, in.data)
	if then == "ends" {
		endDirection(conn)
	}
	most := 99 // up to the end
	if then == "stays" {
		most = 1 + strings.Count(want[0], ",")
	}
	r := bufio.NewReader(conn)
	if then == "any" {
		endDirection(conn)
	}
	began := time.Now()
	got := strings.Join(answers(r, most), ",")
	if got == "" {
		got = "-"
	}
	if !slices.Contains(want, got) {
		t.Errorf("got %s, want %s", got, in.words[0])
	}
	if then == "stays" {
		in.checkStays(t, conn, r)
	} else if took := time.Since(began); took > patience/2 {
		t.Errorf("took %s to the end, want it at once", took)
	}
}

// checkStays sees that the connection still carries a request.
func (in *input) checkStays(t *testing.T, conn net.Conn, r *bufio.Reader) {
	t.Helper()
	io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if got := answers(r, 99); !slices.Equal(got, []string{"200"}) {
		t.Errorf("got %q to one more request, want 200 and the end", got)
	}
}

func (in *input) checkBackend(t *testing.T, w *witness) {
	t.Helper()
	want, err := strconv.Atoi(in.words[2])
	if cut := err != nil; !cut && len(w.broken) > 0 {
		t.Errorf("the backend could not read what it got: %v; %q", w.broken, w.got)
	}
	if w.requests != want || in.words[2] == "0" && len(w.got) > 0 {
		t.Errorf("got %d requests at the backend, want %s; %q", w.requests, in.words[2], w.got)
	}
	in.checkBytes(t, string(w.got))
}
