//go:build linux

// Command lbbench measures lbnode beside nginx, HAProxy, Caddy and net/http's
// own ReverseProxy, and prints a table of ratios.
//
// What is measured is mostly the CPU time that a proxy's processes take for a
// request. Unlike requests per second it hardly depends on what else the machine
// does, and rounds of all proxies alternate, so that what drifts drifts for all.
// The proxy has one core to itself; load and backend share another.
//
// lbbench sim compares the strategies of pools in simulated worlds instead.
//
// Invariant: a figure is never printed for a round in which a request failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// errFailed: a case has failed; exit code 1. The table says which and why.
var errFailed = errors.New("some cases failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "lbbench:", err)
		os.Exit(64)
	default:
		fmt.Fprintln(os.Stderr, "lbbench:", err)
		os.Exit(1)
	}
}

// run measures what the command line asks for, or plays one of the parts that
// run as processes of their own.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		if args[0] == simCommand {
			return simulateAll(ctx, args[1:], stdout, stderr)
		}
		if part, ok := parts()[args[0]]; ok {
			return part(args[1:], stdout)
		}
	}
	s, err := parseSettings(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := newBench(ctx, s, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	return b.runAll(ctx, stdout)
}

// parts are the words that make this program one of its own helpers, so that
// each is pinned and measured like any other process.
func parts() map[string]func(args []string, stdout io.Writer) error {
	return map[string]func([]string, io.Writer) error{
		"part-backend":      runBackend,
		"part-reverseproxy": runReverseProxy,
	}
}
