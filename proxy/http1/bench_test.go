package http1

import (
	"net"
	"testing"
	"time"
)

// sink is a connection that takes everything.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error) { return len(p), nil }
func (sink) LocalAddr() net.Addr         { return &net.TCPAddr{} }

// newTestExchange returns an exchange of a client that is not connected.
func newTestExchange() *Exchange {
	server := &Server{config: Config{Limits: DefaultLimits()}}
	server.setDate(time.Now())
	return &Exchange{session: &session{server: server, conn: sink{}, client: []byte("192.0.2.1"), scheme: []byte("http")}}
}

// BenchmarkHead reads and writes the head of a small request.
func BenchmarkHead(b *testing.B) {
	head := []byte("GET /path?query HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n")
	var out []byte
	x := newTestExchange()
	for b.Loop() {
		x.idLength = 0
		x.request.Reset(&x.session.server.config.Limits)
		n, err := x.request.Parse(head)
		if err != nil {
			b.Fatal(err)
		}
		x.head = head[:n]
		if x.Via("lbnode-0123456789abcdef") {
			b.Fatal("it says that it came by here before")
		}
		out = x.appendRequest(out[:0])
	}
}
