package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

const (
	// lookEvery is the time between two looks at the cluster.
	lookEvery = 200 * time.Millisecond
	// quietLooks is how many looks in a row must find nothing under way: a request has
	// chosen its backend a moment before it counts as under way there.
	quietLooks = 2
	// answerWithin is how long a node that does not answer is waited for. If it is dead the
	// others know by then.
	answerWithin = 6 * time.Second
)

// drainage waits until no node has a request under way at a backend that gets no
// more. It looks at the whole cluster each time, so that it sees nodes that come,
// go or start again.
type drainage struct {
	client     *admin.Client
	pool, name string
	index      uint64    // of a view in which the backend gets no more
	out        io.Writer // gets what is waited for when that changes

	silent map[string]time.Time // since when nodes have not answered, by id
	told   string
}

func newDrainage(client *admin.Client, pool, name string, index uint64, out io.Writer) *drainage {
	return &drainage{client: client, pool: pool, name: name, index: index, out: out, silent: map[string]time.Time{}}
}

// look is what one look at the cluster has shown.
type look struct {
	pending []string // what is waited for
	nodes   int      // that serve traffic, or would
	lost    []string // those of them that cannot be reached
}

// wait returns nil when all nodes have confirmed, errDegraded when all but those
// that cannot be reached have, and another error when ctx is done before.
func (d *drainage) wait(ctx context.Context) error {
	began, quiet := time.Now(), 0
	for {
		seen, err := d.look(ctx)
		if err != nil {
			return err
		}
		if len(seen.pending) > 0 {
			quiet = 0
		} else if quiet++; quiet == quietLooks {
			return d.conclude(seen)
		}
		select {
		case <-ctx.Done():
			if len(seen.pending) == 0 {
				seen.pending = []string{"nothing, but that was not seen twice"}
			}
			return fmt.Errorf("%s gets no new requests, but gave up after %s waiting for %s",
				d.name, time.Since(began).Round(time.Second), strings.Join(seen.pending, "; "))
		case <-time.After(lookEvery):
		}
	}
}

// look asks the node for the cluster. That it does not answer is something to wait
// for: it may start again.
func (d *drainage) look(ctx context.Context) (look, error) {
	view, err := d.client.Cluster(ctx)
	var seen look
	switch {
	case err == nil:
		seen, err = d.judge(view, time.Now())
	case ctx.Err() == nil:
		seen, err = look{pending: []string{err.Error()}}, nil
	case d.told != "":
		return look{pending: []string{d.told}}, nil
	default:
		return look{pending: []string{"an answer"}}, nil
	}
	if now := strings.Join(seen.pending, "; "); now != d.told {
		d.told = now
		if now != "" {
			fmt.Fprintln(d.out, "waiting for "+now)
		}
	}
	return seen, err
}

// judge says what is missing in the cluster as it was at now. The error is for what
// makes waiting vain.
func (d *drainage) judge(view *admin.ClusterView, now time.Time) (look, error) {
	backend := backendIn(view, d.pool, d.name)
	var seen look
	for i := range view.Nodes {
		n := &view.Nodes[i]
		if n.Name == view.AsSeenBy && n.Status == cluster.Alive && n.View.Index >= d.index {
			if err := d.gone(backend); err != nil {
				return seen, err
			}
		}
		if n.Status == cluster.Left {
			continue // it takes no traffic
		}
		seen.nodes++
		switch missing, lost := d.missing(n, backend, now); {
		case lost:
			seen.lost = append(seen.lost, n.Name)
		case missing != "":
			seen.pending = append(seen.pending, n.Name+": "+missing)
		}
	}
	return seen, nil
}

// missing says what is waited for at a node, or that it is lost.
func (d *drainage) missing(n *admin.Node, backend *admin.ClusterBackend, now time.Time) (what string, lost bool) {
	if n.Status != cluster.Alive {
		if d.silent[n.ID].IsZero() {
			d.silent[n.ID] = now
		}
		lost = n.Status == cluster.Failed || now.Sub(d.silent[n.ID]) >= answerWithin
		return "no answer yet", lost
	}
	delete(d.silent, n.ID)
	if n.View.Index < d.index {
		return "does not know of the change yet", false
	}
	if backend == nil {
		return "", false
	}
	for _, at := range backend.AtNodes {
		if at.Node == n.Name && at.InFlight > 0 {
			return fmt.Sprintf("%d in flight", at.InFlight), false
		}
	}
	return "", false
}

// gone is why waiting for a backend is vain, nil if it is not.
func (d *drainage) gone(b *admin.ClusterBackend) error {
	switch {
	case b == nil:
		return fmt.Errorf("backend %q of pool %q was removed while its requests were waited for", d.name, d.pool)
	case b.Admin == state.Ready:
		return fmt.Errorf("backend %q of pool %q was made ready again while its requests were waited for", d.name, d.pool)
	}
	return nil
}

func (d *drainage) conclude(seen look) error {
	confirmed := fmt.Sprintf("%d of %d nodes confirmed", seen.nodes-len(seen.lost), seen.nodes)
	if len(seen.lost) > 0 {
		return fmt.Errorf("%w: %s; %s cannot be reached", errDegraded, confirmed, strings.Join(seen.lost, ", "))
	}
	fmt.Fprintf(d.out, "%s: no request is in flight at %s\n", confirmed, d.name)
	return nil
}

func backendIn(view *admin.ClusterView, pool, name string) *admin.ClusterBackend {
	for i := range view.Pools {
		for j := range view.Pools[i].Backends {
			if b := &view.Pools[i].Backends[j]; view.Pools[i].Name == pool && b.Name == name {
				return b
			}
		}
	}
	return nil
}

// waitFlags are -wait and -timeout.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (f *waitFlags) add(c *invocation) {
	c.flags.BoolVar(&f.wait, "wait", false, "with drain or maint: return when no node has a request in flight at the backend")
	c.flags.DurationVar(&f.timeout, "timeout", 5*time.Minute, "with -wait: `time` after which to give up")
}

// check refuses -wait where there is nothing to wait for.
func (f *waitFlags) check(c *invocation, change admin.BackendSpec) error {
	var err error
	switch stops := change.Admin == state.Drain || change.Admin == state.Maint; {
	case !f.wait && c.given("timeout"):
		err = errors.New("-timeout is for -wait")
	case !f.wait:
	case !stops:
		err = errors.New("-wait is for drain and maint")
	case change.URL != "":
		err = errors.New("-wait is for a backend that stays where it is: change its -url before or after")
	case f.timeout <= 0:
		err = fmt.Errorf("-timeout must be above 0, not %s", f.timeout)
	}
	if err != nil {
		return fmt.Errorf("%w: %w: %s", errUsage, err, c.synopsis)
	}
	return nil
}
