package main

import (
	"context"
	"fmt"
	"io"

	"lbnode/cluster"
)

// runKeygen prints a new secret for the nodes of a cluster to share.
func runKeygen(_ context.Context, args []string, stdout, _ io.Writer) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: lbnode keygen takes no arguments; lbnode keygen > FILE keeps the secret", errUsage)
	}
	_, err := fmt.Fprintln(stdout, cluster.GenerateSecret())
	return err
}
