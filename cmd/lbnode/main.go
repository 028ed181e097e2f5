// Command lbnode is a load balancer that is its own cluster. Without a command
// it runs a node; see run.go for the commands and node.go for how a node is put
// together.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		say(os.Stderr, "lbnode: "+oneLine(err)+"\n")
	}
	os.Exit(exitCode(err))
}
