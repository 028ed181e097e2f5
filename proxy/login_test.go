package proxy

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

// The messages of a handshake by NTLM as they look in a field; the server's is the second.
const (
	ntlm1 = "TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAKAGFKAAAADw=="
	ntlm2 = "TlRMTVNTUAACAAAADAAMADgAAAAFgomi"
	ntlm3 = "TlRMTVNTUAADAAAAGAAYAIIAAAA="
)

// guarded is a backend that knows who asks by the connection: it demands a handshake of two
// legs on one connection, and answers with who has made it.
type guarded struct {
	state.Backend
	opened, open atomic.Int64
	ends         atomic.Bool // it closes idle connections
	drops        atomic.Bool // it closes the connection on which the next request comes
}

func startGuarded(t *testing.T, name, scheme string) *guarded {
	t.Helper()
	g := &guarded{}
	g.Backend = backendAt(name, serveConns(t, func(conn net.Conn) {
		g.opened.Add(1)
		g.open.Add(1)
		defer func() {
			conn.Close() // before it counts as closed
			g.open.Add(-1)
		}()
		user, begun := "nobody", false
		in := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if g.drops.CompareAndSwap(true, false) {
				return
			}
			ends := g.ends.Load() // before the answer, upon which it may change
			given, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
			challenge := scheme
			switch {
			case given == "":
			case strings.HasPrefix(token, ntlm1):
				begun, challenge = true, scheme+" "+ntlm2
			case begun && strings.HasPrefix(token, ntlm3):
				user = strings.TrimPrefix(token, ntlm3)
			}
			if user == "nobody" {
				fmt.Fprintf(conn, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\", %s\r\nContent-Length: 0\r\n\r\n", challenge)
			} else {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s at %s", len(user)+4+len(name), user, name)
			}
			if ends {
				return
			}
		}
	}))
	return g
}

// visitor is a client with one connection.
type visitor struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func arrive(t *testing.T, url string) *visitor {
	conn := dial(t, url)
	return &visitor{t, conn, bufio.NewReader(conn)}
}

// ask sends a request, with these credentials if there are any, and gives status and body.
func (v *visitor) ask(method, credentials string) string {
	v.t.Helper()
	field := ""
	if credentials != "" {
		field = "Authorization: " + credentials + "\r\n"
	}
	fmt.Fprintf(v.conn, "%s / HTTP/1.1\r\nHost: a\r\n%sContent-Length: 0\r\n\r\n", method, field)
	res, err := http.ReadResponse(v.in, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Sprint(res.StatusCode)
	}
	return string(body)
}

func (v *visitor) logIn(scheme, user string) {
	v.t.Helper()
	for _, leg := range []string{"", scheme + " " + ntlm1} {
		if got := v.ask("GET", leg); got != "401" {
			v.t.Fatalf("got %s to %q, want 401", got, leg)
		}
	}
	if got := v.ask("GET", scheme+" "+ntlm3+user); !strings.HasPrefix(got, user+" at ") {
		v.t.Fatalf("got %q at the end of the handshake, want who has made it", got)
	}
}

// Who has authenticated on a connection to a backend has it alone, whatever the others ask,
// and stays at that backend.
func TestUsersDoNotCross(t *testing.T) {
	for _, scheme := range []string{"NTLM", "Negotiate", "ntlm", "NEGOTIATE"} {
		for _, bound := range []int{0, 8} {
			t.Run(fmt.Sprintf("%s, bound %d", scheme, bound), func(t *testing.T) {
				a, b := startGuarded(t, "a", scheme), startGuarded(t, "b", scheme)
				pool := poolOf(state.DefaultPool, a.Backend, b.Backend)
				pool.Limits.Connections = bound
				pool.Timeouts.Hedge, pool.Timeouts.Try = state.Duration(time.Millisecond), state.Duration(5*time.Second)
				_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
				alice, carol := arrive(t, url), arrive(t, url)
				alice.logIn(scheme, "alice")
				carol.logIn(scheme, "carol")
				for range 4 {
					if got := arrive(t, url).ask("GET", ""); got != "401" {
						t.Errorf("got %q for who has not authenticated, want 401", got)
					}
					for _, v := range []struct {
						*visitor
						name string
					}{{alice, "alice"}, {carol, "carol"}} {
						for _, method := range []string{"GET", "POST"} {
							if got := v.ask(method, ""); !strings.HasPrefix(got, v.name+" at ") {
								t.Errorf("got %q, want what is for %s", got, v.name)
							}
						}
					}
				}
				alice.conn.Close()
				carol.conn.Close()
				eventually(t, "their connections are closed with theirs", func() bool { return a.open.Load()+b.open.Load() <= 4 })
				for range 4 {
					if got := arrive(t, url).ask("GET", ""); got != "401" {
						t.Errorf("got %q after they left, want 401", got)
					}
				}
			})
		}
	}
}

// Credentials that come unasked, as those of Kerberos do, make a connection private, too.
func TestCredentialsAloneMakeAConnectionPrivate(t *testing.T) {
	addr := serveConns(t, func(conn net.Conn) {
		in, user := bufio.NewReader(conn), "nobody"
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, token, ok := strings.Cut(req.Header.Get("Authorization"), "Negotiate "); ok {
				user = token
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nPersistent-Auth: true\r\nContent-Length: %d\r\n\r\n%s", len(user), user)
		}
	})
	_, url := startProxy(t, Config{}, backendAt("b", addr))
	alice := arrive(t, url)
	alice.ask("GET", "Negotiate YIIalice")
	if got := arrive(t, url).ask("GET", ""); got != "nobody" {
		t.Errorf("got %q for another client, want nobody", got)
	}
	if got := alice.ask("GET", ""); got != "YIIalice" {
		t.Errorf("got %q for her, want her connection", got)
	}
}

// The rest of a handshake goes over the connection on which it began, or nowhere; but what
// begins one, or needs none, goes over a new one.
func TestHandshakeKeepsToItsConnection(t *testing.T) {
	for _, test := range []struct {
		name     string
		method   string
		next     string
		idle     bool // whether the backend ends the connection before the next request comes
		want     string
		attempts int64 // connections that were opened
	}{
		{"the rest, closed before", "GET", "NTLM " + ntlm3 + "alice", true, "502", 1},
		{"the rest, closed as it comes", "GET", "NTLM " + ntlm3 + "alice", false, "502", 1},
		{"the beginning, closed before", "GET", "NTLM " + ntlm1, true, "401", 2},
		{"the beginning, closed as it comes", "GET", "NTLM " + ntlm1, false, "401", 2},
		{"a POST, closed before", "POST", "NTLM " + ntlm1, true, "401", 2},
		{"a POST, closed as it comes", "POST", "NTLM " + ntlm1, false, "502", 1},
		{"no credentials, closed before", "GET", "", true, "401", 2},
		{"no credentials, closed as it comes", "GET", "", false, "401", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := startGuarded(t, "a", "NTLM"), startGuarded(t, "b", "NTLM")
			pool := poolOf(state.DefaultPool, a.Backend, b.Backend)
			pool.Limits.Failures = 1
			p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
			alice := arrive(t, url)
			alice.ask("GET", "")
			first, other := a, b
			if b.opened.Load() > 0 {
				first, other = b, a
			}
			first.ends.Store(test.idle)
			alice.ask("GET", "NTLM "+ntlm1)
			if test.idle {
				eventually(t, "the backend has closed it", func() bool { return first.open.Load() == 0 })
				first.ends.Store(false)
			} else {
				first.drops.Store(true)
			}
			if got := alice.ask(test.method, test.next); got != test.want {
				t.Errorf("got %q, want %s", got, test.want)
			}
			if got := first.opened.Load(); got != test.attempts || other.opened.Load() > 0 {
				t.Errorf("got %d connections at her backend and %d at the other, want %d and none", first.opened.Load(), other.opened.Load(), test.attempts)
			}
			if got := p.OpenCircuits(); test.method != "POST" && !strings.Contains(test.next, ntlm3) && len(got) > 0 {
				t.Errorf("got the circuits %v open", got)
			}
			if test.want == "502" {
				return
			}
			alice.logIn("NTLM", "alice")
		})
	}
}

// Where connections are bounded, a client that is idle gives way to one that asks.
func TestIdleLoginGivesWay(t *testing.T) {
	g := startGuarded(t, "g", "NTLM")
	pool := poolOf(state.DefaultPool, g.Backend)
	pool.Limits = state.Limits{Connections: 1, Pending: 1}
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	alice, bob := arrive(t, url), arrive(t, url)
	for range 3 {
		alice.logIn("NTLM", "alice")
		bob.logIn("NTLM", "bob")
		eventually(t, "the connection that gave way is closed", func() bool { return g.open.Load() <= 1 })
	}
}

// Whatever clients and the backend do with connections that are some client's alone, none
// holds a place in the end that nobody can have.
func TestLoginsLeaveRoom(t *testing.T) {
	const clients, rounds = 12, 30
	g := startGuarded(t, "g", "NTLM")
	pool := poolOf(state.DefaultPool, g.Backend)
	pool.Limits = state.Limits{Connections: 3, Pending: clients}
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	var running sync.WaitGroup
	for seed := range clients {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			for range rounds {
				v := arrive(t, url)
				for range random.IntN(5) {
					g.drops.Store(random.IntN(4) == 0)
					v.ask("GET", []string{"", "NTLM " + ntlm1, "NTLM " + ntlm3 + "me", "Basic eA=="}[random.IntN(4)])
				}
				v.conn.Close()
			}
		})
	}
	running.Wait()
	g.drops.Store(false)
	eventually(t, "private connections are closed with their clients'", func() bool { return g.open.Load() == 0 })
	room := make([]*visitor, 3)
	for i := range room {
		room[i] = arrive(t, url)
		room[i].logIn("NTLM", "alice")
	}
	if got := g.open.Load(); got != 3 {
		t.Errorf("got room for %d connections in the end, want 3", got)
	}
}
