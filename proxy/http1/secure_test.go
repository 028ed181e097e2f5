package http1

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// certificate is one that httptest keeps.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	return s.TLS.Certificates[0]
}

// gathering writes nothing before flush, so that TLS records go out together.
type gathering struct {
	net.Conn
	out bytes.Buffer
}

func (g *gathering) Write(p []byte) (int, error) { return g.out.Write(p) }

func (g *gathering) flush() {
	g.Conn.Write(g.out.Bytes())
	g.out.Reset()
}

// handshake goes on until it needs nothing more from us.
func (g *gathering) Read(p []byte) (int, error) {
	g.flush()
	return g.Conn.Read(p)
}

// useSecure is use for a backend with TLS. Its connections answer with their number,
// and after it comes what after gives for the first of them.
func (r *rig) useSecure(t *testing.T, after func(secure *tls.Conn, g *gathering)) (finish func()) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	finish = r.use(t, func(conn net.Conn, number int) {
		g := &gathering{Conn: conn}
		secure := tls.Server(g, config)
		in := bufio.NewReader(secure)
		for first := number == 1; ; first = false {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			fmt.Fprintf(secure, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", number)
			if first {
				after(secure, g)
			}
			g.flush()
		}
	})
	backend := r.backend.Load()
	backend.config.TLS = &tls.Config{InsecureSkipVerify: true}
	return finish
}

// ask sends one request and returns the body of the answer.
func (r *rig) ask(t *testing.T, method string) string {
	t.Helper()
	send := method + " / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	got, _ := r.talk(t, []byte(send), len(send), false)
	_, body, _ := strings.Cut(string(got), "\r\n\r\n")
	return body
}

func TestSecureBackendIsReused(t *testing.T) {
	r := startRig(t, DefaultLimits())
	defer r.useSecure(t, func(*tls.Conn, *gathering) {})()
	for range 3 {
		if got := r.ask(t, "POST"); got != "1" {
			t.Errorf("got an answer over connection %s, want the first", got)
		}
	}
}

// What comes behind an answer, in a TLS record of its own, must not become the answer
// to another request.
func TestSecureBackendThatSaysMore(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	tests := map[string]func(*tls.Conn, *gathering, chan bool){
		"together": func(secure *tls.Conn, g *gathering, said chan bool) {
			io.WriteString(secure, evil)
			g.flush()
			close(said)
		},
		"later": func(secure *tls.Conn, g *gathering, said chan bool) {
			g.flush()
			<-time.After(20 * time.Millisecond)
			io.WriteString(secure, evil)
			g.flush()
			close(said)
		},
		"closes": func(secure *tls.Conn, g *gathering, said chan bool) {
			g.flush()
			secure.Close()
			g.flush()
			g.Close()
			close(said)
		},
	}
	for name, after := range tests {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, DefaultLimits())
			said := make(chan bool)
			defer r.useSecure(t, func(secure *tls.Conn, g *gathering) { after(secure, g, said) })()
			if got := r.ask(t, "GET"); got != "1" {
				t.Errorf("got %q, want the answer", got)
			}
			<-said
			if got := r.ask(t, "POST"); got != "2" {
				t.Errorf("got %q, want the answer over another connection", got)
			}
		})
	}
}
