package admin

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// WriteTable writes the view as text for people.
func (v *ClusterView) WriteTable(w io.Writer) error { return v.writeTable(w, time.Now()) }

func (v *ClusterView) writeTable(w io.Writer, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	v.writeSummary(t)
	v.writeNodes(t)
	for i := range v.Pools {
		v.Pools[i].write(t, now)
	}
	return t.Flush()
}

func (v *ClusterView) writeSummary(w io.Writer) {
	condition := "healthy"
	if !v.Healthy {
		condition = "NOT HEALTHY"
	}
	fmt.Fprintf(w, "cluster %s is %s, as %s sees it\n", cmp.Or(v.ClusterID, "(none yet)"), condition, v.AsSeenBy)
	if v.Degraded != "" {
		fmt.Fprintf(w, "degraded: %s\n", v.Degraded)
	}
	agreement := "all nodes agree"
	if !v.Agreement {
		agreement = "nodes DO NOT AGREE yet"
	}
	fmt.Fprintf(w, "leader %s, term %d, commit index %d, quorum %d, tolerates the loss of %d more, %s\n",
		cmp.Or(v.Leader, "NONE"), v.Term, v.CommitIndex, v.Quorum, v.FailureTolerance, agreement)
	for _, warning := range v.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
}

func (v *ClusterView) writeNodes(w io.Writer) {
	fmt.Fprintln(w, "\nNODE\tSTATUS\tROLE\tREADY\tVIEW\tDIGEST\tLAG\tREQ/S\tTRAFFIC")
	for i := range v.Nodes {
		n := &v.Nodes[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d%s\t%.8s\t%d\t%g\t%s\n", n.Name, n.Status, n.Role(), yes(n.Ready),
			n.View.Index, staleMark(n.View), cmp.Or(n.View.Digest, "-"), n.Lag, n.RequestsPerSecond, cmp.Or(n.HTTPAddr, "-"))
	}
}

// Role is the node's part in agreeing: leader, voter or non-voter.
func (n *Node) Role() string {
	switch {
	case n.Leader:
		return "leader"
	case n.Voter:
		return "voter"
	}
	return "non-voter"
}

func (p *ClusterPool) write(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "\npool %s: %s, %d of %d backends healthy\n", p.Name, p.Strategy, p.HealthyBackends, len(p.Backends))
	if len(p.PanicAt) > 0 {
		fmt.Fprintf(w, "too few are fit: health is ignored by %s\n", strings.Join(p.PanicAt, ", "))
	}
	if len(p.Backends) == 0 {
		return
	}
	fmt.Fprintln(w, "BACKEND\tURL\tWEIGHT\tADMIN\tHEALTH\tSINCE\tCHECKED\tIN FLIGHT")
	for i := range p.Backends {
		b := &p.Backends[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", b.Name, b.URL,
			WithAgent(Share(b.Weight, b.Backup), b.AgentWeight), WithAgent(b.Admin, string(b.AgentAdmin)), b.verdict(),
			ago(b.Since, now), ago(b.LastHealthCheck, now), b.InFlight)
	}
}

// Share gives a backend's weight, and whether it is a backup.
func Share(weight int, backup bool) string {
	if backup {
		return fmt.Sprintf("%d backup", weight)
	}
	return strconv.Itoa(weight)
}

// WithAgent gives what the operator wants with what an agent asks for besides, if that
// is anything.
func WithAgent(wanted any, agent string) string {
	if agent == "" {
		return fmt.Sprint(wanted)
	}
	return fmt.Sprintf("%v (agent %s)", wanted, agent)
}

// verdict is the backend's health and, if that is bad, why. A healthy one may be avoided,
// too, by fewer nodes than it takes.
func (b *ClusterBackend) verdict() string {
	if b.Health == state.Unhealthy {
		return strings.TrimSuffix(string(b.Health)+": "+b.Why(), ": ")
	}
	open := b.by("circuit open at ", func(at BackendAtNode) bool { return at.CircuitOpen })
	unreachable := b.by("unreachable from ", func(at BackendAtNode) bool { return at.Unreachable })
	words := []string{string(b.Health), b.ejected(), open, unreachable}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ", ")
}

// Why says why an unhealthy backend is that now: what holds it, what a probe finds, who has
// ejected it, or what it was when the cluster agreed on it.
func (b *ClusterBackend) Why() string {
	why := b.Held
	for _, o := range b.Observers {
		if !o.Healthy {
			why = cmp.Or(why, o.Reason)
		}
	}
	return cmp.Or(why, b.ejected(), b.Reason)
}

func (b *ClusterBackend) ejected() string {
	return b.by("ejected by ", func(at BackendAtNode) bool { return at.Ejected })
}

// by names the nodes of which something holds, after some words; nothing if there is none.
func (b *ClusterBackend) by(words string, holds func(BackendAtNode) bool) string {
	var nodes []string
	for _, at := range b.AtNodes {
		if holds(at) {
			nodes = append(nodes, at.Node)
		}
	}
	if len(nodes) == 0 {
		return ""
	}
	return words + strings.Join(nodes, ", ")
}

func staleMark(v cluster.ViewStatus) string {
	if v.Stale {
		return " (stale)"
	}
	return ""
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ago says how long before now a time in the API's form was.
func ago(formatted string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, formatted)
	if err != nil {
		return "-"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	}
	return fmt.Sprintf("%dd ago", d/(24*time.Hour))
}
