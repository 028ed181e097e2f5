package main

import (
	"context"
	"fmt"
	"io"
)

// runLeave takes the asked node out of its cluster for good.
func runLeave(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("leave", "", stdout)
	if _, err := c.parse(args, 0, 0); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := client.Leave(ctx); err != nil {
		return changeFailed(err, "take the node at "+c.admin+" out of its cluster", "lbnode members on another node")
	}
	left := map[string]string{"admin": c.admin}
	return c.print(left, func(w io.Writer) { fmt.Fprintf(w, "the node at %s has left its cluster and stops\n", c.admin) })
}
