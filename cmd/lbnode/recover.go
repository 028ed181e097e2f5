package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"lbnode/cluster"
)

const recoverArgs = "[-data-dir DIR] [-secret FILE] [-yes] [-force]"

// recovering is what a recovery was told and what came of it.
type recovering struct {
	dir, secret string
	sure, force bool
	stderr      io.Writer
}

// runRecover makes a new cluster of the data of a stopped node. It shows what it
// found and asks before it changes anything.
func runRecover(ctx context.Context, args []string, stdout, stderr io.Writer) (failed error) {
	c := newInvocation("recover", recoverArgs, stdout)
	p := recovering{stderr: stderr}
	c.flags.StringVar(&p.dir, "data-dir", cmp.Or(os.Getenv("LBNODE_DATA_DIR"), defaultDataDir()), "`directory` of the node, which must not run")
	c.flags.StringVar(&p.secret, "secret", os.Getenv("LBNODE_SECRET"), "`file` with the secret that all nodes share, to ask the other nodes whether they are there")
	c.flags.BoolVar(&p.sure, "yes", false, "do not ask")
	c.flags.BoolVar(&p.force, "force", false, "recover although a quorum may be there; two clusters may come of it")
	if _, err := c.parse(args, 0, 0); err != nil {
		return err
	}
	r, err := cluster.OpenRecovery(p.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("cannot recover: %w", err)
	}
	defer func() { failed = errors.Join(failed, r.Close()) }()
	found, err := p.look(ctx, r)
	if err != nil {
		return err
	}
	done, err := r.Run()
	if err != nil {
		return fmt.Errorf("cannot recover: %w", err)
	}
	answer := struct {
		Found *cluster.Found `json:"found"`
		cluster.Recovered
	}{found, done}
	return c.print(answer, func(w io.Writer) { writeRecovered(w, done) })
}

// look shows what there is, and returns an error unless the recovery is to go on.
func (p *recovering) look(ctx context.Context, r *cluster.Recovery) (*cluster.Found, error) {
	var secrets [][]byte
	var err error
	if p.secret != "" {
		if secrets, err = cluster.ReadSecrets(p.secret); err != nil {
			return nil, err
		}
	}
	found, err := r.Find(ctx, secrets)
	if err != nil {
		return nil, fmt.Errorf("cannot recover: %w", err)
	}
	writeFound(p.stderr, p.dir, found)
	if err := found.QuorumLost(); err != nil {
		if !p.force {
			return nil, fmt.Errorf("%w; nothing was changed; -force recovers all the same", err)
		}
		fmt.Fprintf(p.stderr, "\n-force: going on although %s\n", err)
	}
	if p.sure {
		return found, nil
	}
	return found, confirm(os.Stdin, p.stderr, "\nThis node becomes the only one of a NEW cluster with what is shown above, and what only the\n"+
		"others knew is lost. The others must never start again with the data they have now.")
}

func writeFound(out io.Writer, dir string, f *cluster.Found) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "found in\t%s\n", dir)
	fmt.Fprintf(w, "node\t%s\n", f.NodeID)
	fmt.Fprintf(w, "cluster\t%s\n", f.ClusterID)
	for _, lost := range f.Unusable {
		fmt.Fprintf(w, "NOT USABLE\t%s\n", lost)
	}
	if f.From == "" {
		fmt.Fprintf(w, "log\tends at index %d, term %d; snapshot at index %d\n", f.LastIndex, f.LastTerm, f.SnapshotIndex)
	} else {
		fmt.Fprintf(w, "instead\t%s is used; what the log had beyond that is lost\n", f.From)
	}
	backends := 0
	for _, p := range f.View.Pools {
		backends += len(p.Backends)
	}
	fmt.Fprintf(w, "holds\t%s, %s, %s\n", plural(len(f.View.Pools), "pool"), plural(backends, "backend"), plural(len(f.View.Routes), "route"))
	if f.CutShort != "" {
		fmt.Fprintf(w, "recovery\tone was cut short and is finished now; as it was before, the directory is in %s\n", f.CutShort)
	}
	w.Flush() // to a terminal or a pipe: if that is gone, the question fails
	fmt.Fprintln(out)
	fmt.Fprintln(w, "MEMBER\tID\tRAFT\tVOTES\tNOW")
	for _, m := range f.Members {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", cmp.Or(m.Name, "-"), m.ID, m.Addr, yesNo(m.Voter), m.Answer)
	}
	w.Flush()
}

func writeRecovered(w io.Writer, done cluster.Recovered) {
	fmt.Fprintf(w, "recovered: this node is the only voter of the new cluster %s\n", done.ClusterID)
	fmt.Fprintf(w, "the directory as it was is kept in %s\n", done.Kept)
	fmt.Fprintf(w, "next, in this order:\n"+
		"1. on every other node: stop lbnode if it runs, and empty its data directory\n"+
		"2. start lbnode on this node: it serves what was in its log, alone\n"+
		"3. start lbnode on the others, with the settings that they had: they join it\n"+
		"4. when lbnode status shows all of them, remove %s\n", done.Kept)
}
