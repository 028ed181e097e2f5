package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"lbnode/proxy/http1"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleClientTime    = 60 * time.Second
	// listenerHTTP names the listeners for plain HTTP in counts.
	listenerHTTP = "http"
)

func (p *Proxy) newServer() *http1.Server {
	return http1.NewServer(http1.Config{
		Handler: (*traffic)(p),
		Limits:  http1.DefaultLimits(),
		Header:  cmp.Or(p.config.HeaderTimeout, readHeaderTimeout),
		Idle:    cmp.Or(p.config.IdleTimeout, idleClientTime),

		MaxConns:          p.config.MaxConnections,
		MaxConnsPerClient: p.config.MaxConnectionsPerClient,

		Trusted: within(p.config.TrustedProxies),
		Proxied: within(p.config.ProxyProtocol),
		Times:   p.config.AccessLog != nil,
		Log:     p.log,
	})
}

// within returns what says whether an address is in one of the networks, which is not
// one of IPv4 within IPv6; nil if there are none.
func within(networks []netip.Prefix) func(netip.Addr) bool {
	if len(networks) == 0 {
		return nil
	}
	return func(addr netip.Addr) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
	}
}

// Listen takes traffic on addr, host:port, and returns the address bound, which
// tells the port where addr has port 0. It may be called for several addresses. The
// error names the address and what to do.
func (p *Proxy) Listen(addr string) (net.Addr, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, listenError(addr, err)
	}
	p.serving.Go(func() { p.accept(listener) })
	return listener.Addr(), nil
}

func (p *Proxy) accept(listener net.Listener) {
	if err := p.server.Serve(listener); !errors.Is(err, net.ErrClosed) {
		p.log.Error("listener failed", "addr", listener.Addr().String(), "error", err)
	}
}

func listenError(addr string, err error) error {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return fmt.Errorf("cannot listen for traffic on %s: %w", addr, err)
	}
	switch number {
	case syscall.EADDRINUSE:
		return fmt.Errorf("cannot listen for traffic on %s: %w; stop the other process or choose another with -http", addr, number)
	case syscall.EACCES:
		return fmt.Errorf("cannot listen for traffic on %s: %w; run with CAP_NET_BIND_SERVICE or choose a port above 1023 with -http", addr, number)
	default:
		return fmt.Errorf("cannot listen for traffic on %s: %w; choose another with -http", addr, number)
	}
}

// Retire makes the proxy no longer ready, so that traffic is sent elsewhere. It serves
// what comes all the same, and asks clients to close their connections.
func (p *Proxy) Retire() {
	p.draining.Store(true)
	p.server.Retire()
}

// Shutdown stops the proxy for good: it is no longer ready, takes no connections,
// and lets requests end until ctx is done, when it cuts those that are left and
// returns an error that says how many.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.Retire()
	err := p.server.Shutdown(ctx)
	p.cut()
	p.serving.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.findings {
		f.via.Close()
	}
	return err
}
