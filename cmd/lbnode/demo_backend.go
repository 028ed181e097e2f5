package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// runDemoBackend is the hidden command that the demo runs as its backends: a
// server that says who it is and what it was asked. It ends when ctx is done.
func runDemoBackend(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: demo backend NAME ADDR", errUsage)
	}
	name, addr := args[0], args[1]
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot listen for %s: %w", name, err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return fmt.Errorf("cannot read the address of %s: %w", name, err)
	}
	server := &http.Server{Handler: greeter(name, port), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve as %s: %w", name, err)
	}
	return nil
}

func greeter(name, port string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Hello from %s on :%s\n%s %s\nX-Forwarded-For: %s\n", name, port, r.Method, r.URL.RequestURI(), r.Header.Get("X-Forwarded-For"))
	}
}
