package proxy

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/proxy/health"
	"lbnode/state"
)

// names is a server of DNS for one name, with whatever addresses that has just now.
type names struct {
	asked atomic.Int64

	mu    sync.Mutex
	addrs []netip.Addr
}

func (n *names) set(addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = addrs
}

// turn changes the order of the addresses at each question, as many servers do.
func (n *names) turn() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = append(n.addrs[1:len(n.addrs):len(n.addrs)], n.addrs[0])
	return n.addrs
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go n.serve(there)
		return here, nil
	}}
}

// serve answers one question, in the form that it has over TCP (RFC 1035, section 4).
func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return
	}
	n.asked.Add(1)
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // the root, the type and the class
	var answers []byte
	count := 0
	if binary.BigEndian.Uint16(query[end-4:]) == 1 { // A
		for _, addr := range n.turn() {
			answers = append(answers, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
			answers = append(answers, addr.AsSlice()...)
			count++
		}
	}
	message := slices.Concat(query[:2], []byte{0x81, 0x80, 0, 1, 0, byte(count), 0, 0, 0, 0}, query[12:end], answers)
	conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
}

// homes are servers that listen on one port of several addresses, and answer with theirs.
type homes struct {
	addrs   []netip.Addr
	servers []*server
	backend state.Backend // of the name
}

func startHomes(t *testing.T, count int) *homes {
	t.Helper()
	for range 100 {
		if h := tryHomes(t, count); h != nil {
			return h
		}
	}
	t.Fatal("no port is free on several addresses")
	return nil
}

func tryHomes(t *testing.T, count int) *homes {
	first := listenAlone(t)
	listeners, port := []net.Listener{first}, first.Addr().(*net.TCPAddr).Port
	for len(listeners) < count {
		other := listenAlone(t)
		addr := other.Addr().(*net.TCPAddr).IP.String()
		other.Close()
		same, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil
		}
		listeners = append(listeners, same)
	}
	h := &homes{backend: backendAt("b", first.Addr())}
	h.backend.Host = "moving.test"
	for _, l := range listeners {
		h.serve(t, l)
	}
	return h
}

// serve answers with the address, and keeps what startServer keeps of connections.
func (h *homes) serve(t *testing.T, l net.Listener) {
	addr := l.Addr().(*net.TCPAddr).AddrPort().Addr()
	s := &server{name: addr.String(), conns: map[net.Conn]bool{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s.name) }))
	s.Server.Listener.Close()
	s.Server.Listener = l
	s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateNew {
			s.hits.Add(1) // connections, here
		}
		if state == http.StateClosed {
			delete(s.conns, conn)
		} else {
			s.conns[conn] = true
		}
	}
	s.Start()
	t.Cleanup(s.kill)
	h.addrs, h.servers = append(h.addrs, addr), append(h.servers, s)
}

// placer takes what probes find to a proxy, as a node does.
type placer struct{ proxy *Proxy }

func (p placer) Reachable(id string, ok bool)         { p.proxy.SetReachable(id, ok) }
func (p placer) Judged(o health.Observation)          { p.proxy.SetOpinion(o.BackendID, o.Healthy) }
func (p placer) Failed(string, string)                {}
func (p placer) Placed(id, url string, at netip.Addr) { p.proxy.SetPlace(id, url, at) }

// probed starts a proxy whose one backend is probed all the time. It returns the checker and
// the view besides.
func probed(t *testing.T, n *names, b state.Backend) (*Proxy, string, *health.Checker, *state.View) {
	t.Helper()
	pool := poolOf(state.DefaultPool, b)
	pool.HealthCheck = state.HealthCheck{
		Type: "http", Path: "/", Interval: state.Duration(20 * time.Millisecond), Timeout: state.Duration(2 * time.Second), Rise: 1, Fall: 1000,
	}
	v := viewOf(nil, pool)
	p, url := startProxyWith(t, Config{Resolver: n.resolver()}, v)
	c := health.New(health.Config{Sink: placer{p}, Log: slog.New(slog.DiscardHandler), Resolver: n.resolver()})
	t.Cleanup(c.Stop)
	c.Update(v, func(string) bool { return true })
	return p, url, c, v
}

// place is where the proxy thinks that the backend is.
func placeOf(p *Proxy, id string) netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.findings[id].at
}

// Traffic goes where probes pass, though connections to where the name was go on working.
func TestTrafficFollowsProbes(t *testing.T) {
	h, n := startHomes(t, 2), &names{}
	n.set(h.addrs[0])
	p, url, c, v := probed(t, n, h.backend)
	web := client(t)
	eventually(t, "a probe passes", func() bool { return placeOf(p, h.backend.ID) == h.addrs[0] })
	if got := mustGet(t, web, url, http.StatusOK); got != h.servers[0].name {
		t.Fatalf("got %s, want %s", got, h.servers[0].name)
	}
	n.set(h.addrs[1])
	eventually(t, "a probe passes where the name has moved", func() bool { return placeOf(p, h.backend.ID) == h.addrs[1] })
	for range 5 {
		if got := mustGet(t, web, url, http.StatusOK); got != h.servers[1].name {
			t.Errorf("got %s after it moved, want %s", got, h.servers[1].name)
		}
	}
	before := n.asked.Load()
	c.Update(v, func(string) bool { return false })
	eventually(t, "nobody looks where it is", func() bool { return !placeOf(p, h.backend.ID).IsValid() })
	if before = n.asked.Load(); mustGet(t, web, url, http.StatusOK) != h.servers[1].name || n.asked.Load() != before {
		t.Error("got the name asked for, want the connection that was there")
	}
	n.set(h.addrs[0])
	h.servers[1].kill()
	if got := mustGet(t, web, url, http.StatusOK); got != h.servers[0].name {
		t.Errorf("got %s without probes, want where the name is, %s", got, h.servers[0].name)
	}
}

// A name with several addresses is one backend at one of them; at another when that fails.
func TestNameWithSeveralAddresses(t *testing.T) {
	h, n := startHomes(t, 3), &names{}
	n.set(h.addrs...)
	p, url, c, v := probed(t, n, h.backend)
	web := client(t)
	eventually(t, "a probe passes", func() bool { return placeOf(p, h.backend.ID).IsValid() })
	at := slices.Index(h.addrs, placeOf(p, h.backend.ID))
	asked := n.asked.Load()
	eventually(t, "there are many probes", func() bool {
		if got := mustGet(t, web, url, http.StatusOK); got != h.servers[at].name {
			t.Fatalf("got %s, want %s as before", got, h.servers[at].name)
		}
		return n.asked.Load() > asked+40
	})
	h.servers[at].kill()
	var other string
	eventually(t, "a probe passes at another", func() bool {
		if other = mustGet(t, web, url, http.StatusOK); other == h.servers[at].name {
			t.Fatal("got an answer of one that is gone")
		}
		return placeOf(p, h.backend.ID) != h.addrs[at]
	})
	c.Update(v, func(string) bool { return false })
	if got := p.Unreachable(); len(got) != 0 {
		t.Errorf("got %v unreachable, want none: the name has other addresses", got)
	}
}

// While the place of a backend takes no connections, those to its other addresses are kept.
func TestConnectionsBesideThePlaceAreKept(t *testing.T) {
	h, n := startHomes(t, 2), &names{}
	n.set(h.addrs[1])
	h.servers[0].kill()
	p, url := startProxyWith(t, Config{Resolver: n.resolver()}, viewOf(nil, poolOf(state.DefaultPool, h.backend)))
	p.SetPlace(h.backend.ID, h.backend.URL(), h.addrs[0])
	web := client(t)
	for range 20 {
		if got := mustGet(t, web, url, http.StatusOK); got != h.servers[1].name {
			t.Errorf("got %s, want %s", got, h.servers[1].name)
		}
	}
	if got := h.servers[1].hits.Load(); got != 1 {
		t.Errorf("got %d connections, want one", got)
	}
	// What was found at another URL says nothing of this one.
	p.SetPlace(h.backend.ID, "http://other.test:1", h.addrs[1])
	if got := placeOf(p, h.backend.ID); got != h.addrs[0] {
		t.Errorf("got %s, want it unchanged", got)
	}
}

func TestOnlyNamesAge(t *testing.T) {
	for host, want := range map[string]time.Duration{
		"192.0.2.1": 0, "2001:db8::1": 0, "fe80::1%eth0": 0,
		"web": namedBackendAge, "web-1.example.com": namedBackendAge, "192.0.2.1.example.com": namedBackendAge, "localhost": namedBackendAge,
	} {
		if got := ageFor(host); got != want {
			t.Errorf("%s: got %s, want %s", host, got, want)
		}
	}
}
