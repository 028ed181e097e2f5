package health

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"lbnode/state"
)

// checkedAs is a pool with that check, patient unless it says otherwise.
func checkedAs(h state.HealthCheck) *state.Pool {
	if h.Timeout == 0 {
		h.Timeout = state.Duration(5 * time.Second)
	}
	if h.Path == "" {
		h.Path = "/"
	}
	return &state.Pool{Settings: state.Settings{HealthCheck: h}}
}

// serveHTTP serves with the handler, over TLS if secure, in the given protocols, and
// returns a prober that trusts the certificate.
func serveHTTP(t *testing.T, secure bool, protocols func(*http.Protocols), handler http.HandlerFunc) (*state.Backend, prober) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.Config.Protocols = &http.Protocols{}
	protocols(server.Config.Protocols)
	t.Cleanup(server.Close)
	if !secure {
		server.Start()
		return backendAt(t, "http", server.Listener.Addr().String()), prober{}
	}
	server.EnableHTTP2 = server.Config.Protocols.HTTP2()
	server.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return backendAt(t, "https", server.Listener.Addr().String()), prober{tls: &tls.Config{RootCAs: roots}}
}

func http1(p *http.Protocols) { p.SetHTTP1(true) }
func http2(p *http.Protocols) { p.SetHTTP2(true); p.SetUnencryptedHTTP2(true) }

// portOf is the port that a backend of serveHTTP or listen has.
func portOf(b *state.Backend) int { return b.Port }

func TestHTTPExpectations(t *testing.T) {
	b, p := serveHTTP(t, false, http1, func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
		if err != nil {
			code = 200
		}
		w.WriteHeader(code)
		if r.URL.Path == "/late" {
			io.WriteString(w, strings.Repeat("x", 100<<10))
		}
		fmt.Fprintf(w, "%s asked %s of %s", r.Method, r.Header.Get("X-Probe"), r.Host)
	})
	for _, test := range []struct {
		name   string
		check  state.HealthCheck
		passed bool
		reason string
	}{
		{"expected status", state.HealthCheck{Path: "/401", Status: "200-299,401"}, true, "401 Unauthorized"},
		{"other status", state.HealthCheck{Path: "/302", Status: "200-299,401"}, false, "302 Found, not 200-299,401, in N ms"},
		{"expected body", state.HealthCheck{Body: "GET asked"}, true, "200 OK"},
		{"other body", state.HealthCheck{Body: "UP"}, false, "200 OK without the expected body in N ms"},
		{"body that comes too late", state.HealthCheck{Path: "/late", Body: "GET asked"}, false, "200 OK without the expected body in N ms"},
		{"header", state.HealthCheck{Body: "asked a b of", Headers: map[string]string{"X-Probe": "a b"}}, true, "200 OK"},
		{"host", state.HealthCheck{Body: "of www.example.com", Host: "www.example.com"}, true, "200 OK"},
		{"IPv6 host", state.HealthCheck{Body: "of [2001:db8::1]", Host: "2001:db8::1"}, true, "200 OK"},
		{"POST", state.HealthCheck{Method: "POST", Body: "POST asked"}, true, "200 OK"},
		{"OPTIONS", state.HealthCheck{Method: "OPTIONS", Body: "OPTIONS asked"}, true, "200 OK"},
		{"HEAD", state.HealthCheck{Method: "HEAD"}, true, "200 OK"},
	} {
		test.check.Type = "http"
		got := plain(p.probe(t.Context(), checkedAs(test.check), b))
		if want := found(test.passed, true, test.reason); got != want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, want)
		}
	}
}

// A probe goes by the name of its pool, so that a backend which would send traffic back
// refuses it.
func TestProbesNameTheirPool(t *testing.T) {
	b, p := serveHTTP(t, false, http1, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Via") == "1.1 lbnode-of-"+state.DefaultPool {
			w.WriteHeader(http.StatusLoopDetected)
		}
	})
	pool := checkedAs(state.HealthCheck{Type: "http"})
	pool.Name = state.DefaultPool
	if got, want := plain(p.probe(t.Context(), pool, b)), found(true, true, "200 OK"); got != want {
		t.Errorf("without a name: got %+v, want %+v", got, want)
	}
	p.via = func(pool string) string { return "lbnode-of-" + pool }
	if got, want := plain(p.probe(t.Context(), pool, b)), found(false, true, "508 Loop Detected in N ms"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A check decides on TLS whatever the backend's protocol is.
func TestProbeWithAndWithoutTLS(t *testing.T) {
	secure, trusting := serveHTTP(t, true, http1, func(http.ResponseWriter, *http.Request) {})
	open, _ := serveHTTP(t, false, http1, func(http.ResponseWriter, *http.Request) {})
	for _, kind := range []string{"http", "tcp"} {
		for _, test := range []struct {
			name     string
			prober   prober
			port     int
			protocol string
			tls      string
			passed   bool
		}{
			{"on", trusting, portOf(secure), "http", "on", true},
			{"on, not trusted", prober{}, portOf(secure), "http", "on", false},
			{"insecure", prober{}, portOf(secure), "http", "insecure", true},
			{"on, without TLS there", trusting, portOf(open), "http", "on", false},
			{"off", prober{}, portOf(open), "http", "off", true},
			{"off, where traffic needs it", trusting, portOf(secure), "https", "off", kind == "tcp"}, // which has a connection even so
			{"by the protocol", trusting, portOf(secure), "https", "", true},
			{"by the protocol, open", prober{}, portOf(open), "http", "", true},
		} {
			b := &state.Backend{Protocol: test.protocol, Host: "127.0.0.1", Port: test.port}
			got := test.prober.probe(t.Context(), checkedAs(state.HealthCheck{Type: kind, TLS: test.tls}), b)
			if got.passed != test.passed {
				t.Errorf("%s, TLS %s: got %+v, want passed %t", kind, test.name, got, test.passed)
			}
		}
	}
}

// The name of a check is also the one that the certificate must be for.
func TestProbeNamesTheHostInTLS(t *testing.T) {
	b, p := serveHTTP(t, true, http1, func(http.ResponseWriter, *http.Request) {}) // for example.com and 127.0.0.1
	for host, want := range map[string]bool{"": true, "example.com": true, "example.org": false} {
		got := p.probe(t.Context(), checkedAs(state.HealthCheck{Type: "http", Host: host}), b)
		if got.passed != want {
			t.Errorf("%q: got %+v, want passed %t", host, got, want)
		}
	}
}

// closedPort returns a port on which nothing listens.
func closedPort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// A check of another port passes only where traffic can connect to its own.
func TestProbeOfAnotherPort(t *testing.T) {
	good, _ := serveHTTP(t, false, http1, func(http.ResponseWriter, *http.Request) {})
	bad, _ := serveHTTP(t, false, http1, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	nothing := closedPort(t)
	for _, test := range []struct {
		name          string
		traffic, port int
		want          result
	}{
		{"both listen", portOf(bad), portOf(good), found(true, true, "200 OK")},
		{"nothing takes traffic", nothing, portOf(good), found(false, false, fmt.Sprintf("traffic cannot connect to port %d: connection refused", nothing))},
		{"the probe fails", portOf(good), portOf(bad), found(false, true, "503 Service Unavailable in N ms")},
		{"the probe fails, nothing takes traffic", nothing, portOf(bad), found(false, true, "503 Service Unavailable in N ms")},
		{"nothing to probe", portOf(good), nothing, found(false, true, "connection refused")},
		{"its own port", portOf(good), portOf(good), found(true, true, "200 OK")},
	} {
		b := &state.Backend{Protocol: "http", Host: "127.0.0.1", Port: test.traffic}
		pool := checkedAs(state.HealthCheck{Type: "http", Port: test.port})
		pool.ProxyProtocol = map[bool]string{true: state.ProxyV1}[test.traffic != test.port] // not sent to a port that is not traffic's
		if got := plain((prober{}).probe(t.Context(), pool, b)); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// Whatever port a check of whatever kind is of, it passes only where traffic can connect.
func TestNoKindPassesWhereTrafficCannotConnect(t *testing.T) {
	nothing := closedPort(t)
	web, _ := serveHTTP(t, false, http1, func(http.ResponseWriter, *http.Request) {})
	rpc, _ := serveHTTP(t, false, http2, healthServer)
	agent := listenRaw(t, func(conn net.Conn) { io.WriteString(conn, "up 100%\n") })
	for kind, port := range map[string]int{"http": portOf(web), "tcp": portOf(web), "grpc": portOf(rpc), "agent": portOf(agent)} {
		check := state.HealthCheck{Type: kind, Port: port}
		b := &state.Backend{Protocol: "http", Host: "127.0.0.1", Port: portOf(web)}
		if got := (prober{}).probe(t.Context(), checkedAs(check), b); !got.passed || !got.connected {
			t.Errorf("%s, where traffic can connect: got %+v, want a pass", kind, got)
		}
		b.Port = nothing
		want := fmt.Sprintf("traffic cannot connect to port %d: connection refused", nothing)
		if got := (prober{}).probe(t.Context(), checkedAs(check), b); got.passed || got.connected || got.reason != want {
			t.Errorf("%s, where traffic cannot connect: got %+v, want a failure: %s", kind, got, want)
		}
	}
}

// Traffic to an https backend needs a certificate for the backend's host. A check that looks at
// another one, or at none, does not show that there is one.
func TestProbeSeesWhetherTrafficTrustsTheBackend(t *testing.T) {
	secure, trusting := serveHTTP(t, true, http1, func(http.ResponseWriter, *http.Request) {}) // for example.com and 127.0.0.1
	open, _ := serveHTTP(t, false, http1, func(http.ResponseWriter, *http.Request) {})
	for _, test := range []struct {
		name   string
		prober prober
		port   int // of traffic
		check  state.HealthCheck
		passed bool
	}{
		{"trusted", trusting, portOf(secure), state.HealthCheck{Type: "http"}, true},
		{"trusted, by another name in the check", trusting, portOf(secure), state.HealthCheck{Type: "http", Host: "example.com"}, true},
		{"any certificate, trusted", trusting, portOf(secure), state.HealthCheck{Type: "http", TLS: "insecure"}, true},
		{"any certificate, not trusted", prober{}, portOf(secure), state.HealthCheck{Type: "http", TLS: "insecure"}, false},
		{"connection, trusted", trusting, portOf(secure), state.HealthCheck{Type: "tcp"}, true},
		{"connection, not trusted", prober{}, portOf(secure), state.HealthCheck{Type: "tcp"}, false},
		{"plain, another port, trusted", trusting, portOf(secure), state.HealthCheck{Type: "http", TLS: "off", Port: portOf(open)}, true},
		{"plain, another port, not trusted", prober{}, portOf(secure), state.HealthCheck{Type: "http", TLS: "off", Port: portOf(open)}, false},
		{"plain where traffic needs TLS", trusting, portOf(open), state.HealthCheck{Type: "http", TLS: "off"}, false},
	} {
		b := &state.Backend{Protocol: "https", Host: "127.0.0.1", Port: test.port}
		got := test.prober.probe(t.Context(), checkedAs(test.check), b)
		if got.passed != test.passed || got.connected != test.passed || !test.passed && !strings.HasPrefix(got.reason, "traffic cannot connect to port ") {
			t.Errorf("%s: got %+v, want passed %t", test.name, got, test.passed)
		}
	}
}

// healthServer answers grpc.health.v1.Health/Check as a gRPC server does.
func healthServer(w http.ResponseWriter, r *http.Request) {
	message, err := io.ReadAll(r.Body)
	if err != nil || r.ProtoMajor != 2 || r.Method != "POST" || r.URL.Path != "/grpc.health.v1.Health/Check" ||
		r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	answers := map[string]string{
		"\x00\x00\x00\x00\x00":               "\x08\x01",                  // the server as a whole: SERVING
		"\x00\x00\x00\x00\x06\x0a\x04down":   "\x08\x02",                  // NOT_SERVING
		"\x00\x00\x00\x00\x05\x0a\x03new":    "\x12\x01x\x08\x01\x18\x7f", // SERVING between fields of a later version
		"\x00\x00\x00\x00\x07\x0a\x05empty":  "",                          // UNKNOWN
		"\x00\x00\x00\x00\x08\x0a\x06broken": "\x08",
		"\x00\x00\x00\x00\x05\x0a\x03odd":    "\x08\x63",
	}
	answer, known := answers[string(message)]
	switch string(message[min(len(message), 7):]) {
	case "unimplemented":
		w.Header().Set("Grpc-Status", "12")
		return
	case "403":
		w.WriteHeader(http.StatusForbidden)
		return
	case "silent":
		<-r.Context().Done()
		return
	}
	w.Header().Set("Trailer", "Grpc-Status")
	if !known {
		w.WriteHeader(http.StatusOK)
		w.Header().Set("Grpc-Status", "5")
		return
	}
	fmt.Fprintf(w, "\x00\x00\x00\x00%c%s", len(answer), answer)
	w.Header().Set("Grpc-Status", "0")
}

func TestGRPCProbe(t *testing.T) {
	for _, secure := range []bool{false, true} {
		b, p := serveHTTP(t, secure, http2, healthServer)
		for _, test := range []struct {
			service string
			passed  bool
			reason  string
		}{
			{"", true, "SERVING"},
			{"new", true, "SERVING"},
			{"down", false, "NOT_SERVING in N ms"},
			{"empty", false, "UNKNOWN in N ms"},
			{"odd", false, "status 99 in N ms"},
			{"broken", false, "not an answer of grpc.health.v1.Health"},
			{"other", false, "the service is not known there (gRPC status 5) in N ms"},
			{"unimplemented", false, "grpc.health.v1.Health is not served there (gRPC status 12) in N ms"},
			{"403", false, "403 Forbidden in N ms"},
		} {
			got := plain(p.probe(t.Context(), checkedAs(state.HealthCheck{Type: "grpc", Service: test.service}), b))
			if want := found(test.passed, true, test.reason); got != want {
				t.Errorf("TLS %t, service %q: got %+v, want %+v", secure, test.service, got, want)
			}
		}
		hanging := checkedAs(state.HealthCheck{Type: "grpc", Service: "silent", Timeout: state.Duration(100 * time.Millisecond)})
		if got := p.probe(t.Context(), hanging, b); got.passed || got.reason != "timeout after 100ms" { // a slow machine may not even connect
			t.Errorf("TLS %t, no answer: got %+v, want a timeout after 100ms", secure, got)
		}
	}
}

// What a server sends may be anything.
func FuzzReadServing(f *testing.F) {
	for _, body := range []string{"", "\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x02\x0b\x0c", "\x01\x00\x00\x00\x00", "\x00\xff\xff\xff\xff"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		status, err := readServing(body)
		if err != nil && status != 0 || err == nil && servingName(status) == "" {
			t.Errorf("%q: got %d, %v", body, status, err)
		}
	})
}

func TestGRPCProbeOfOtherServers(t *testing.T) {
	plainHTTP1, _ := serveHTTP(t, false, http1, func(http.ResponseWriter, *http.Request) {})
	secureHTTP1, trusting := serveHTTP(t, true, http1, func(http.ResponseWriter, *http.Request) {})
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	deaf := listenTLS(t, &tls.Config{Certificates: certificate.TLS.Certificates})
	mail := listen(t, func(conn *net.TCPConn, _ string) {
		io.WriteString(conn, "220 mail.example.com ESMTP\r\n")
		untilClosed(conn)
	})
	closing := listen(t, func(conn *net.TCPConn, _ string) {
		conn.CloseWrite()
		untilClosed(conn)
	})
	for _, test := range []struct {
		name    string
		prober  prober
		backend *state.Backend
		want    result
	}{
		{"HTTP/1", prober{}, plainHTTP1, found(false, true, "no HTTP/2 answer")},
		{"HTTP/1 in TLS", trusting, secureHTTP1, found(false, false, "remote error: tls: no application protocol")},
		{"TLS without ALPN", trusting, deaf, found(false, true, "no HTTP/2: the server does not agree on h2 in TLS")},
		{"mail", prober{}, mail, found(false, true, "no HTTP/2 answer")},
		{"closed", prober{}, closing, found(false, true, "no HTTP/2 answer")},
	} {
		got := test.prober.probe(t.Context(), checkedAs(state.HealthCheck{Type: "grpc", Timeout: state.Duration(2 * time.Second)}), test.backend)
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// listenTLS shakes hands with each connection and closes it when the other side does.
func listenTLS(t *testing.T, config *tls.Config) *state.Backend {
	t.Helper()
	b := listenRaw(t, func(conn net.Conn) {
		secure := tls.Server(conn, config)
		if secure.Handshake() == nil {
			untilClosed(secure)
		}
	})
	b.Protocol = "https"
	return b
}
