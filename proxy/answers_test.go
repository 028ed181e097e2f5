package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lbnode/state"
)

// script is a backend that answers the first request on its first connection with
// given bytes, and all others with the number of the connection.
type script struct {
	data string
	ends bool // it closes the first connection behind them

	mu    sync.Mutex
	conns int
}

func startScript(t testing.TB, data string, ends bool) state.Backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{data: data, ends: ends}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })
	return backendAt("script", listener.Addr())
}

func (s *script) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	s.mu.Lock()
	s.conns++
	number := s.conns
	s.mu.Unlock()
	r := bufio.NewReader(conn)
	for first := number == 1; readHead(r) != ""; first = false {
		if first {
			io.WriteString(conn, s.data)
			if s.ends {
				return
			}
			continue
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", number)
	}
}

// asks are the requests of responses.txt.
var asks = map[string]string{
	"GET":     "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"HEAD":    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
	"1.0":     "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
	"upgrade": "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}

// Every line of responses.txt.
func TestResponseInputs(t *testing.T) {
	for _, in := range readInputs(t, "responses", 4) {
		t.Run(in.name, func(t *testing.T) {
			p, url := startProxy(t, Config{}, startScript(t, in.data, in.words[1] == "ends"))
			ask, want := in.words[0], in.words[2]
			var got strings.Builder
			conn := dial(t, url)
			io.WriteString(conn, asks[ask])
			began := time.Now()
			statuses := strings.Join(readAnswers(conn, &got, ask, 1+strings.Count(want, ",")), ",")
			if !slices.Contains(strings.Split(want, "|"), statuses) {
				t.Errorf("got %s, want %s; %q", statuses, want, got.String())
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("took %s, want it at once", took)
			}
			in.checkBytes(t, got.String())
			conn.Close()
			eventually(t, "the exchange is over", func() bool { return p.server.Active() == 0 })
			in.checkReuse(t, url)
		})
	}
}

// readAnswers reads as many answers as are wanted.
func readAnswers(conn net.Conn, all io.Writer, method string, most int) (statuses []string) {
	r := bufio.NewReader(io.TeeReader(conn, all))
	if method != http.MethodHead {
		method = http.MethodGet
	}
	for len(statuses) < most {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if errors.Is(err, syscall.ECONNRESET) {
			return append(statuses, "cut")
		}
		if err != nil {
			return append(statuses, err.Error())
		}
		statuses = append(statuses, fmt.Sprint(res.StatusCode))
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return append(statuses, "cut")
		}
	}
	return statuses
}

// checkReuse asks once more, and sees over which connection the answer comes.
func (in *input) checkReuse(t *testing.T, url string) {
	t.Helper()
	want := "2"
	if in.words[3] == "kept" {
		want = "1"
	}
	got := talk(t, url, "GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.HasSuffix(got, "\r\n\r\n"+want) {
		t.Errorf("got %q to the next request, want it over connection %s", got, want)
	}
}
