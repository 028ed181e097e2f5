package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

// runStatus shows the whole cluster as the asked node sees it. Its error wraps
// errDegraded when the cluster is not healthy.
func runStatus(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("status", "", stdout)
	view, err := c.cluster(ctx, args)
	if err != nil {
		return err
	}
	var failed error
	err = c.print(view, func(w io.Writer) { failed = view.WriteTable(w) })
	return cmp.Or(err, failed, condition(view))
}

// runMembers lists the nodes.
func runMembers(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("members", "", stdout)
	view, err := c.cluster(ctx, args)
	if err != nil {
		return err
	}
	return c.print(view.Nodes, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tID\tADDRESS\tADMIN\tSTATUS\tROLE\tREADY\tLAG\tCONTACT\tVERSION")
		for i := range view.Nodes {
			n := &view.Nodes[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", n.Name, n.ID, n.Addr, cmp.Or(n.AdminAddr, "-"), n.Status,
				n.Role(), yesNo(n.Ready), n.Lag, contact(n), cmp.Or(n.Version, "-"))
		}
	})
}

// cluster asks the node for the cluster, for a command without words.
func (c *invocation) cluster(ctx context.Context, args []string) (*admin.ClusterView, error) {
	if _, err := c.parse(args, 0, 0); err != nil {
		return nil, err
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return client.Cluster(ctx)
}

// contact says how long ago a node heard from the leader.
func contact(n *admin.Node) string {
	switch {
	case n.Leader:
		return "-"
	case n.LastContactMS < 0:
		return "never"
	}
	return fmt.Sprintf("%dms", n.LastContactMS)
}

// condition is nil for a healthy cluster whose pools can answer, else errDegraded
// and what is wrong.
func condition(view *admin.ClusterView) error {
	wrong := deadPools(view)
	if view.Healthy && len(wrong) == 0 {
		return nil
	}
	if view.Degraded != "" {
		wrong = append(wrong, view.Degraded)
	} else if view.Leader == "" {
		wrong = append(wrong, "no leader")
	}
	for _, n := range view.Nodes {
		switch {
		case n.Status == cluster.Suspect || n.Status == cluster.Failed:
			wrong = append(wrong, fmt.Sprintf("node %s is %s", n.Name, n.Status))
		case n.Status == cluster.Left && n.Voter:
			wrong = append(wrong, fmt.Sprintf("node %s has stopped", n.Name))
		}
	}
	if !view.Agreement {
		wrong = append(wrong, "the nodes do not agree yet")
	}
	if len(wrong) == 0 {
		return errDegraded
	}
	return fmt.Errorf("%w: %s", errDegraded, strings.Join(wrong, "; "))
}

// deadPools complains of pools of which backends are wanted and none of those serves.
func deadPools(view *admin.ClusterView) []string {
	var dead []string
	for _, p := range view.Pools {
		wanted, serves := false, false
		for _, b := range p.Backends {
			wanted = wanted || b.Admin == state.Ready
			serves = serves || b.Admin == state.Ready && b.AgentAdmin == "" && b.Health == state.Healthy
		}
		if wanted && !serves {
			dead = append(dead, fmt.Sprintf("pool %s has no healthy backend that is ready", p.Name))
		}
	}
	return dead
}
