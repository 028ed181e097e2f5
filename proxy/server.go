package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleClientTime    = 60 * time.Second
	maxRequestHeader  = 64 << 10
	// listenerHTTP names the listeners for plain HTTP in counts.
	listenerHTTP = "http"
	// pollInterval is how often Shutdown looks whether requests are over.
	pollInterval = 10 * time.Millisecond
)

// newServer returns the server and what ends its requests.
func (p *Proxy) newServer() (*http.Server, context.CancelFunc) {
	ctx, cut := context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:                      http.HandlerFunc(p.serve),
		DisableGeneralOptionsHandler: true,
		Protocols:                    protocols,
		ReadHeaderTimeout:            readHeaderTimeout,
		IdleTimeout:                  idleClientTime,
		MaxHeaderBytes:               maxRequestHeader,
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnState:                    p.countConnection,
	}, cut
}

// countConnection counts connections. One that a WebSocket took over is counted
// out when its request ends.
func (p *Proxy) countConnection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		p.recorder.Connections(listenerHTTP, 1)
	case http.StateClosed:
		p.recorder.Connections(listenerHTTP, -1)
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
	if err := p.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
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

// Shutdown stops the proxy for good: it is no longer ready, takes no connections,
// and lets requests end until ctx is done, when it cuts those that are left and
// returns an error that says how many.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.draining.Store(true)
	err := p.server.Shutdown(ctx)
	if err == nil {
		err = p.idle(ctx) // the server does not wait for WebSockets
	}
	if left := p.active.Load(); left == 0 {
		err = nil // what is left are connections without a request
	} else if err != nil {
		err = fmt.Errorf("cannot wait for %d requests, which are cut: %w", left, err)
	}
	p.cut()
	p.server.Close()
	p.serving.Wait()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if p.idle(ending) != nil {
		p.log.Warn("requests would not end", "count", p.active.Load())
	}
	p.engine.close()
	return err
}

// idle waits until no request is under way, at most until ctx is done.
func (p *Proxy) idle(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for p.active.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}
