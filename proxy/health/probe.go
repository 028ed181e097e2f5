package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"

	"lbnode/state"
)

// How much of an answer to an http probe is read: the header must fit, the body
// counts as read when this much of it has come.
const (
	maxHeader = 64 << 10
	maxBody   = 64 << 10
)

var (
	errNotHTTP   = errors.New("not an HTTP/1 answer")
	errBigHeader = errors.New("header over 64 KiB")
)

// result is what one probe found.
type result struct {
	passed    bool
	connected bool // false if no connection could be made
	reason    string
}

// probeFunc probes a backend once, as its pool says.
type probeFunc func(context.Context, *state.Pool, *state.Backend) result

// prober probes over the network, with a connection for each probe.
//
// A certificate is verified, against the system's roots, as it is for traffic:
// to pass a backend that no request can reach would be worse than to fail it.
type prober struct {
	tls *tls.Config // nil for the system's roots; tests bring their own
}

func (p prober) probe(ctx context.Context, pool *state.Pool, b *state.Backend) result {
	check := &pool.HealthCheck
	timeout := time.Duration(check.Timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := p.connect(ctx, pool, b)
	if err != nil {
		return result{reason: describe(ctx, err, timeout)}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if check.Type == "tcp" {
		return result{passed: true, connected: true, reason: "connected"}
	}
	status, err := get(conn, b, check.Path)
	if err != nil {
		return result{connected: true, reason: describe(ctx, err, timeout)}
	}
	return result{
		passed:    status >= 200 && status <= 399,
		connected: true,
		reason:    strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status))),
	}
}

// connect makes a connection that a request can be sent on. A tcp check is over
// before anything is sent.
func (p prober) connect(ctx context.Context, pool *state.Pool, b *state.Backend) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", b.Addr())
	if err != nil || pool.HealthCheck.Type == "tcp" {
		return conn, err
	}
	if err = introduce(conn, pool.ProxyProtocol); err == nil && b.Protocol == "https" {
		secure := tls.Client(conn, p.tlsFor(b))
		conn, err = secure, secure.HandshakeContext(ctx)
	}
	if err != nil {
		conn.Close()
	}
	return conn, err
}

func (p prober) tlsFor(b *state.Backend) *tls.Config {
	config := p.tls.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	config.ServerName = b.Host
	return config
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

// get sends a request and reads the answer, its body too, so that a backend that
// hangs halfway fails. It returns the final status.
func get(conn net.Conn, b *state.Backend, path string) (int, error) {
	// Written by hand because the path goes out as the operator gave it, which
	// net/url does not promise.
	const request = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: lbnode-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if _, err := fmt.Fprintf(conn, request, path, b.Addr()); err != nil {
		return 0, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	response, err := readFinal(bufio.NewReader(limited))
	if err != nil && limited.N <= 0 {
		return 0, errBigHeader
	}
	if err != nil {
		return 0, err
	}
	limited.N = maxBody
	if _, err := io.Copy(io.Discard, response.Body); err != nil && limited.N > 0 {
		return 0, err
	}
	return response.StatusCode, nil
}

// readFinal reads up to the end of the header, past interim answers such as 103.
func readFinal(r *bufio.Reader) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, notHTTP(err)
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
	}
}

// notHTTP gives err if it came from the connection. Errors from parsing quote
// what the backend sent, which has no place in logs.
func notHTTP(err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errNotHTTP
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
