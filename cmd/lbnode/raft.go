package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"lbnode/cluster/admin"
)

func runRaft(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runOneOf(ctx, "raft", []command{
		{"peers", "", "list the nodes that share the log, alive or not", runRaftPeers},
		{"remove", "NAME|ID", "remove a node that is dead and does not come back, without the wait of ten minutes", runRaftRemove},
	}, args, stdout, stderr)
}

func runRaftPeers(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("raft peers", "", stdout)
	view, err := c.cluster(ctx, args)
	if err != nil {
		return err
	}
	peers := slices.DeleteFunc(view.Nodes, func(n admin.Node) bool { return !n.Member })
	return c.print(peers, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tID\tSTATUS\tROLE\tLAG")
		for i := range peers {
			n := &peers[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", cmp.Or(n.Name, "-"), n.ID, n.Status, n.Role(), n.Lag)
		}
	})
}

func runRaftRemove(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("raft remove", "NAME|ID", stdout)
	words, err := c.parse(args, 1, 1)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := client.Expel(ctx, words[0]); err != nil {
		return changeFailed(err, fmt.Sprintf("remove the node %q from raft", words[0]), "lbnode raft peers")
	}
	removed := map[string]string{"peer": words[0]}
	return c.print(removed, func(w io.Writer) {
		fmt.Fprintf(w, "removed %s; should it come back with its data, it is added again\n", words[0])
	})
}
