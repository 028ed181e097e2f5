package admin

import (
	"cmp"
	"fmt"
	"io"
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", b.Name, b.URL, b.share(), b.Admin, b.verdict(),
			ago(b.Since, now), ago(b.LastHealthCheck, now), b.InFlight)
	}
}

// share is the backend's weight, and whether it is a backup.
func (b *ClusterBackend) share() string {
	if b.Backup {
		return fmt.Sprintf("%d backup", b.Weight)
	}
	return fmt.Sprint(b.Weight)
}

// verdict is the backend's health and, if that is bad, what a probe found.
func (b *ClusterBackend) verdict() string {
	if b.Health == state.Unhealthy {
		for _, o := range b.Observers {
			if !o.Healthy {
				return fmt.Sprintf("%s: %s", b.Health, o.Reason)
			}
		}
	}
	var ejected []string
	for _, at := range b.AtNodes {
		if at.Ejected {
			ejected = append(ejected, at.Node)
		}
	}
	if len(ejected) > 0 {
		return fmt.Sprintf("%s, ejected by %s", b.Health, strings.Join(ejected, ", "))
	}
	return string(b.Health)
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
