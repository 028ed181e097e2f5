package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
	passed    bool // traffic can connect, too
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
// So a check that is made in another way than traffic is sent passes only if
// traffic can connect, too.
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
	switch {
	case elsewhere(pool, b) && !r.passed:
		r.connected, r.at = true, netip.Addr{} // which says nothing of traffic's port
	case r.passed && !vouches(pool, b):
		if r.at, err = p.reach(ctx, pool, b); err != nil {
			r.passed, r.connected = false, false
			r.reason = fmt.Sprintf("traffic cannot connect to port %d: %s", b.Port, describe(ctx, err, timeout))
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

// vouches says whether a check that passes has connected as traffic does: to its port and,
// where that needs TLS, with a certificate for the backend's host.
func vouches(pool *state.Pool, b *state.Backend) bool {
	check := &pool.HealthCheck
	trusts := secured(check, b) && check.TLS != state.TLSInsecure && cmp.Or(check.Host, b.Host) == b.Host
	return !elsewhere(pool, b) && (b.Protocol != "https" || trusts)
}

// reach connects as traffic does, and says where. A check that does not must not keep a
// backend healthy that answers no request, nor bring traffic back to it.
func (p prober) reach(ctx context.Context, pool *state.Pool, b *state.Backend) (netip.Addr, error) {
	proxy, config := "", (*tls.Config)(nil) // without TLS it is over before anything is sent
	if b.Protocol == "https" {
		proxy, config = pool.ProxyProtocol, p.tlsFor(b.Host)
	}
	conn, err := p.open(ctx, pool, b, b.Port, proxy, config)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close() // what the other side makes of that is no matter
	return placeOf(conn, b), nil
}

// connect makes a connection that a check can be made on.
func (p prober) connect(ctx context.Context, pool *state.Pool, b *state.Backend) (net.Conn, error) {
	check, proxy, config := &pool.HealthCheck, pool.ProxyProtocol, (*tls.Config)(nil)
	if secured(check, b) {
		config = p.tlsFor(cmp.Or(check.Host, b.Host))
		config.InsecureSkipVerify = check.TLS == state.TLSInsecure
		if check.Type == state.CheckGRPC {
			config.NextProtos = []string{"h2"}
		}
	}
	// What the pool says of PROXY headers is of traffic's port, and a tcp check without TLS is
	// over before anything is sent.
	if elsewhere(pool, b) || check.Type == state.CheckTCP && config == nil {
		proxy = ""
	}
	return p.open(ctx, pool, b, probedPort(pool, b), proxy, config)
}

// open connects to a port of the backend, says by the PROXY protocol, if one is named, who
// does, and shakes hands if there is a TLS configuration.
func (p prober) open(ctx context.Context, pool *state.Pool, b *state.Backend, port int, proxy string, config *tls.Config) (net.Conn, error) {
	conn, err := p.dial(ctx, time.Duration(pool.HealthCheck.Timeout), b.Host, port)
	if err != nil {
		return nil, err
	}
	err = introduce(conn, proxy)
	if err == nil && config != nil {
		secure := tls.Client(conn, config)
		conn, err = secure, secure.HandshakeContext(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
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

// tlsFor verifies the certificate of a host.
func (p prober) tlsFor(host string) *tls.Config {
	config := p.tls.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	config.ServerName = host
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
