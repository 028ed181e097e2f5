package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"

	"lbnode/state"
)

// result is what one probe found.
type result struct {
	passed    bool
	connected bool // false if traffic could not connect
	reason    string
	said      words      // by an agent
	at        netip.Addr // where traffic can connect to a host that is a name; zero if that is not known
}

// probeFunc probes a backend once, as its pool says; at the given address if its name still
// stands for that, so that one with several is not found at another each time.
type probeFunc func(context.Context, *state.Pool, *state.Backend, netip.Addr) result

// prober probes over the network, with a connection for each probe.
//
// A certificate is verified, against the system's roots, as it is for traffic:
// to pass a backend that no request can reach would be worse than to fail it.
// Whoever wants it otherwise says so in the check.
type prober struct {
	tls      *tls.Config              // nil for the system's roots; tests bring their own
	resolver *net.Resolver            // nil for the system's
	via      func(pool string) string // gives the name of Via; may be nil
	last     netip.Addr               // where the backend's name was when a probe last passed
}

// probeFrom is a probeFunc.
func (p prober) probeFrom(ctx context.Context, pool *state.Pool, b *state.Backend, last netip.Addr) result {
	p.last = last
	return p.probe(ctx, pool, b)
}

func (p prober) probe(ctx context.Context, pool *state.Pool, b *state.Backend) result {
	timeout := time.Duration(pool.HealthCheck.Timeout)
	ctx, cancel := within(ctx, timeout)
	defer cancel()
	r, err := p.check(ctx, pool, b)
	if err != nil {
		r.reason = describe(ctx, err, timeout)
	}
	if elsewhere(pool, b) {
		r.connected, r.at = true, netip.Addr{}
		if r.passed {
			r.at, r.connected = p.reaches(ctx, timeout, b)
		}
	}
	return r
}

// check connects and asks. With an error, the result says no more than whether there
// was a connection.
func (p prober) check(ctx context.Context, pool *state.Pool, b *state.Backend) (result, error) {
	conn, err := p.connect(ctx, pool, b)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r := result{passed: true, reason: "connected"}
	switch pool.HealthCheck.Type {
	case state.CheckTCP:
	case state.CheckGRPC:
		r, err = askGRPC(ctx, conn, &pool.HealthCheck, b)
	case state.CheckAgent:
		r, err = askAgent(conn)
	default:
		r, err = askHTTP(conn, &pool.HealthCheck, b, p.viaOf(pool))
	}
	r.connected, r.at = true, placeOf(conn, b)
	return r, err
}

func (p prober) viaOf(pool *state.Pool) string {
	if p.via == nil {
		return ""
	}
	return p.via(pool.Name)
}

// elsewhere says whether a check probes another port than the one that traffic goes
// to.
func elsewhere(pool *state.Pool, b *state.Backend) bool { return probedPort(pool, b) != b.Port }

func probedPort(pool *state.Pool, b *state.Backend) int {
	return cmp.Or(pool.HealthCheck.Port, b.Port)
}

// reaches says whether traffic can connect to the backend, and where. A probe of another
// port does not show it: one that fails says nothing of it, and one that passes must not
// bring traffic back to where nothing listens.
func (p prober) reaches(ctx context.Context, timeout time.Duration, b *state.Backend) (netip.Addr, bool) {
	conn, err := p.dial(ctx, timeout, b.Host, b.Port)
	if err != nil {
		return netip.Addr{}, false
	}
	conn.Close()
	return placeOf(conn, b), true
}

// connect makes a connection that a request can be sent on. Without TLS, a tcp check
// is over before anything is sent.
func (p prober) connect(ctx context.Context, pool *state.Pool, b *state.Backend) (net.Conn, error) {
	conn, err := p.dial(ctx, time.Duration(pool.HealthCheck.Timeout), b.Host, probedPort(pool, b))
	secured := secured(&pool.HealthCheck, b)
	if err != nil || pool.HealthCheck.Type == state.CheckTCP && !secured {
		return conn, err
	}
	if !elsewhere(pool, b) { // what the pool says of PROXY headers is of traffic's port
		err = introduce(conn, pool.ProxyProtocol)
	}
	if err == nil && secured {
		secure := tls.Client(conn, p.tlsFor(&pool.HealthCheck, b))
		conn, err = secure, secure.HandshakeContext(ctx)
	}
	if err != nil {
		conn.Close()
	}
	return conn, err
}

// secured says whether a check speaks TLS.
func secured(check *state.HealthCheck, b *state.Backend) bool {
	switch check.TLS {
	case state.TLSOn, state.TLSInsecure:
		return true
	case state.TLSOff:
		return false
	}
	return b.Protocol == "https" && check.Type != state.CheckTCP && check.Type != state.CheckAgent
}

func (p prober) tlsFor(check *state.HealthCheck, b *state.Backend) *tls.Config {
	config := p.tls.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	config.ServerName = cmp.Or(check.Host, b.Host)
	config.InsecureSkipVerify = check.TLS == state.TLSInsecure
	if check.Type == state.CheckGRPC {
		config.NextProtos = []string{"h2"}
	}
	return config
}

// authority is what a request names as the host that it asks.
func authority(check *state.HealthCheck, b *state.Backend) string {
	switch port := cmp.Or(check.Port, b.Port); {
	case check.Host == "":
		return net.JoinHostPort(b.Host, strconv.Itoa(port))
	case strings.Contains(check.Host, ":"):
		return "[" + check.Host + "]"
	}
	return check.Host
}

// introduce says, to a backend that wants a PROXY header, that the connection is the
// sender's own.
func introduce(conn net.Conn, protocol string) error {
	if protocol == "" {
		return nil
	}
	header := proxyproto.Header{Version: 1, Command: proxyproto.LOCAL}
	if protocol == state.ProxyV2 {
		header.Version = 2
	}
	_, err := header.WriteTo(conn)
	return err
}

// describe gives the few words that an operator needs of why a probe failed.
func describe(ctx context.Context, err error, timeout time.Duration) string {
	var (
		errno   syscall.Errno
		network net.Error
		lookup  *net.DNSError
	)
	switch {
	case ctx.Err() != nil:
		return "timeout after " + timeout.String()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &network) && network.Timeout():
		return "timeout after " + timeout.String()
	case errors.As(err, &lookup):
		return lookup.Err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed before the end of the answer"
	}
	return err.Error()
}
