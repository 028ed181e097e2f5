package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"lbnode/proxy/balance"
)

const (
	idleBackendConns  = 1024 // per backend
	idleBackendTime   = 60 * time.Second
	maxResponseHeader = 64 << 10
	copyBufferSize    = 32 << 10
)

// forwarder is the engine that carries bytes between clients and backends.
type forwarder struct {
	log       *slog.Logger
	found     func(t *balance.Target, err error) // told of every attempt to connect
	dialer    net.Dialer
	tls       *tls.Config // for https backends
	transport *http.Transport
	reverse   *httputil.ReverseProxy
}

// exchangeKey and attemptKey are those of context values: an *exchange, and an
// attempt for a connection that is made on its behalf and may outlive it.
type (
	exchangeKey struct{}
	attemptKey  struct{}
)

type attempt struct {
	target  *balance.Target
	connect time.Duration // bounds connecting
}

func newForwarder(log *slog.Logger, found func(*balance.Target, error)) *forwarder {
	f := &forwarder{log: log, found: found, tls: &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	f.transport = &http.Transport{
		DialContext:            f.dial,
		DialTLSContext:         f.dialTLS,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idleBackendConns,
		IdleConnTimeout:        idleBackendTime,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
	f.reverse = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     f,
		FlushInterval: -1, // at once: a stream must not wait for a buffer to fill
		BufferPool:    &buffers{},
		ErrorHandler:  f.fail,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return f
}

// forward carries out an exchange whose first attempt was begun.
func (f *forwarder) forward(e *exchange, r *http.Request) {
	if !wantsWebSocket(r) {
		r.Header.Del("Upgrade")
	}
	r = r.WithContext(context.WithValue(e.ctx, exchangeKey{}, e))
	if e.body != nil {
		r.Body = e.body
		// Without it the server would read the body to its end before an answer.
		http.NewResponseController(e.out).EnableFullDuplex()
	}
	f.reverse.ServeHTTP(e.out, r)
	e.out.dropTrailers()
}

// rewrite makes the request that goes out, but for its target.
func rewrite(pr *httputil.ProxyRequest) {
	setRequestHeader(pr.Out.Header, pr.In)
	hideIdempotencyKeys(pr.Out.Header)
	pr.Out.Trailer = nil // it would be announced but, coming after the body, never sent
	in := pr.In.URL
	pr.Out.URL = &url.URL{Path: in.Path, RawPath: in.RawPath, RawQuery: in.RawQuery, ForceQuery: in.ForceQuery}
	// An opaque URL goes out as it is, whereas a path may be escaped anew. One that
	// begins with // would be taken for a host.
	if path := rawPath(pr.In); !strings.HasPrefix(path, "//") {
		pr.Out.URL.Opaque = path
	}
}

// hideIdempotencyKeys keeps http.Transport from sending a POST twice because it
// carries such a key. Names are the same to a backend in any case.
func hideIdempotencyKeys(header http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := header[name]; ok {
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
}

// RoundTrip implements http.RoundTripper by as many attempts as it takes.
func (f *forwarder) RoundTrip(req *http.Request) (*http.Response, error) {
	e := req.Context().Value(exchangeKey{}).(*exchange)
	target := e.tried[0]
	for {
		res, err := f.try(e, target, req)
		if err == nil {
			e.code = res.StatusCode
			return res, nil
		}
		f.log.Debug("attempt failed", "pool", e.pool.spec.Name, "backend", target.Name, "error", err)
		if target = e.next(err); target == nil {
			return nil, err
		}
	}
}

// try sends a request to one target.
func (f *forwarder) try(e *exchange, target *balance.Target, req *http.Request) (*http.Response, error) {
	to := attempt{target, time.Duration(e.pool.spec.Timeouts.Connect)}
	out := req.WithContext(context.WithValue(req.Context(), attemptKey{}, to))
	address := *req.URL
	address.Scheme, address.Host = target.Protocol, target.Addr
	out.URL = &address
	if out.Body != nil {
		out.Body = e.body // whose Close does nothing, unlike that of req.Body
	}
	res, err := f.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(res, req); err != nil {
		res.Body.Close()
		return nil, err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		// From here on the two ends say themselves when they have waited long enough.
		e.watch.stop()
	}
	return res, nil
}

// fail answers a request for which no attempt brought an answer.
func (f *forwarder) fail(_ http.ResponseWriter, req *http.Request, err error) {
	e := req.Context().Value(exchangeKey{}).(*exchange)
	if e.out.hijacked {
		return
	}
	code := e.statusOf(err)
	if code == statusClientLeft {
		e.out.code = code
		panic(http.ErrAbortHandler)
	}
	e.out.refuse(code, strings.ToLower(http.StatusText(code)))
}

func (f *forwarder) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return f.connect(ctx, network, addr, &f.dialer)
}

func (f *forwarder) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	return f.connect(ctx, network, addr, &tls.Dialer{NetDialer: &f.dialer, Config: f.tls})
}

// connect opens a connection, the TLS handshake included, since a backend that
// fails it is as little use as one that refuses.
func (f *forwarder) connect(ctx context.Context, network, addr string, dialer interface {
	DialContext(context.Context, string, string) (net.Conn, error)
}) (net.Conn, error) {
	on := ctx.Value(attemptKey{}).(attempt)
	limited, cancel := context.WithTimeout(ctx, on.connect)
	defer cancel()
	conn, err := dialer.DialContext(limited, network, addr)
	if err == nil {
		f.found(on.target, nil)
		return conn, nil
	}
	if ctx.Err() == nil && !ownFault(err) {
		f.found(on.target, err)
	}
	return nil, connectError{err}
}

// ownFault says whether it was for want of something on this node that a
// connection could not be made, which says nothing about the backend.
func ownFault(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// close closes the idle connections to backends.
func (f *forwarder) close() { f.transport.CloseIdleConnections() }

// buffers implements httputil.BufferPool.
type buffers struct{ pool sync.Pool }

// Get returns a buffer to copy through.
func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[copyBufferSize]byte); ok {
		return buffer[:]
	}
	return make([]byte, copyBufferSize)
}

// Put takes a buffer back.
func (b *buffers) Put(buffer []byte) { b.pool.Put((*[copyBufferSize]byte)(buffer)) }
