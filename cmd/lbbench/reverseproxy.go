//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// runReverseProxy is what a few lines of net/http make of a proxy, tuned: it is
// the yardstick of what an engine of one's own is worth.
func runReverseProxy(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("part-reverseproxy", flag.ContinueOnError)
	listen := fs.String("listen", "", "address")
	backend := fs.String("backend", "", "URL")
	if err := fs.Parse(args); err != nil {
		return err
	}
	target, err := url.Parse(*backend)
	if err != nil {
		return fmt.Errorf("cannot forward to %q: %w", *backend, err)
	}
	server := &http.Server{Addr: *listen, Handler: newReverseProxy(target), ErrorLog: log.New(os.Stderr, "", 0)}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return fmt.Errorf("cannot serve: %w", err)
	}
	return nil
}

func newReverseProxy(target *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			// The default of 2 would have nearly every request open a connection.
			MaxIdleConns: 0, MaxIdleConnsPerHost: 4096,
			IdleConnTimeout: time.Minute,
			// The client's wish goes to the backend as it is.
			DisableCompression: true,
		},
		// A buffer of its own for each response would be garbage at once.
		BufferPool: newBufferPool(runtime.GOMAXPROCS(0) * 64),
	}
}

// bufferPool keeps buffers for copying bodies.
type bufferPool chan []byte

func newBufferPool(size int) bufferPool { return make(bufferPool, size) }

// Get implements httputil.BufferPool.
func (p bufferPool) Get() []byte {
	select {
	case b := <-p:
		return b
	default:
		return make([]byte, 32<<10)
	}
}

// Put implements httputil.BufferPool.
func (p bufferPool) Put(b []byte) {
	select {
	case p <- b:
	default:
	}
}
