package proxy

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lbnode/state"
)

func TestListenErrorSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	tests := map[string]string{
		addr:             "cannot listen for traffic on " + addr + ": address already in use; stop the other process or choose another with -http",
		"192.0.2.1:0":    "cannot listen for traffic on 192.0.2.1:0: cannot assign requested address; choose another with -http",
		"127.0.0.1:none": "cannot listen for traffic on 127.0.0.1:none: ",
	}
	p := New(Config{})
	defer shutdownNow(p)
	for addr, want := range tests {
		if _, err := p.Listen(addr); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Listen(%s): got %v, want %s", addr, err, want)
		}
	}
}

func TestReady(t *testing.T) {
	p := New(Config{})
	if p.Ready() {
		t.Error("got ready without a view")
	}
	p.SetView(state.EmptyView())
	if !p.Ready() {
		t.Error("got not ready with a view")
	}
	shutdownNow(p)
	if p.Ready() {
		t.Error("got ready after shutdown")
	}
}

// inHandler starts a request and returns once it is at the backend, with what ends
// it there and where the client's outcome comes.
func inHandler(t *testing.T) (p *Proxy, url string, leave chan<- bool, outcome <-chan error) {
	t.Helper()
	entered, end, result := make(chan bool, 1), make(chan bool, 1), make(chan error, 1)
	b := startServer(t, "b", func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	p, url = startProxy(t, Config{}, b.backend())
	web := client(t)
	go func() {
		_, _, err := get(web, url)
		result <- err
	}()
	<-entered
	return p, url, end, result
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	p, url, leave, outcome := inHandler(t)
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(t.Context()) }()
	eventually(t, "the listener is closed", func() bool {
		conn, err := net.Dial("tcp", url[len("http://"):])
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if p.Ready() {
		t.Error("got ready while shutting down")
	}
	select {
	case err := <-ended:
		t.Errorf("Shutdown returned %v with a request under way", err)
	default:
	}
	leave <- true
	if err := <-outcome; err != nil {
		t.Errorf("the request under way got %v, want its answer", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: got %v, want nil", err)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	p, _, _, outcome := inHandler(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx); err == nil || !strings.HasPrefix(err.Error(), "cannot wait for 1 requests") {
		t.Errorf("Shutdown: got %v, want it to say that a request was cut", err)
	}
	if err := <-outcome; err == nil {
		t.Error("the request got a clean answer, want it cut")
	}
	if got := p.server.Active(); got != 0 {
		t.Errorf("got %d requests under way after Shutdown, want 0", got)
	}
}

func TestShutdownWaitsForWebSocketsThenCutsThem(t *testing.T) {
	b, _ := startRaw(t, "ws", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.Copy(conn, conn)
	})
	p, url := startProxy(t, Config{}, b)
	conn := dial(t, url)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	readHead(r)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(ctx) }()
	io.WriteString(conn, "still here\n")
	if got, err := r.ReadString('\n'); got != "still here\n" {
		t.Errorf("got %q, %v; want the echo", got, err)
	}
	if err := <-ended; err == nil {
		t.Error("Shutdown: got nil, want it to say that a connection was cut")
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("got %q, want the connection closed", rest)
	}
}

func TestLimits(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	huge := "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 128<<10) + "\r\n\r\n"
	if got := talk(t, url, huge); !strings.HasPrefix(got, "HTTP/1.1 431") {
		t.Errorf("got %.40q for a huge header, want 431", got)
	}
	fat, _ := startRaw(t, "fat", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 128<<10)+"\r\nContent-Length: 0\r\n\r\n")
	})
	_, url = startProxy(t, Config{}, fat)
	mustGet(t, client(t), url, http.StatusBadGateway)
}

// faulty is a Recorder with a fault in it.
type faulty struct{ discard }

func (faulty) Reject(string) { panic("a fault of ours") }

func TestPanicIsLogged(t *testing.T) {
	var out strings.Builder
	p, url := startProxyWith(t, Config{Recorder: faulty{}, Log: slog.New(slog.NewTextHandler(&out, nil))}, nil)
	if got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); got != "" {
		t.Errorf("got %q, want the connection closed", got)
	}
	shutdownNow(p)
	if !strings.Contains(out.String(), "a fault of ours") {
		t.Errorf("got the log %q, want the panic in it", out.String())
	}
}

func BenchmarkProxy(b *testing.B) {
	backend := startServer(b, "b", nil)
	_, url := startProxy(b, Config{}, backend.backend())
	web := client(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if code, _, err := get(web, url); err != nil || code != http.StatusOK {
				b.Errorf("got %d, %v; want 200", code, err)
				return
			}
		}
	})
}
