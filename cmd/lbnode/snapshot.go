package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"

	"lbnode/cluster/admin"
	"lbnode/state"
)

const (
	snapshotSaveArgs    = "FILE [-stale] [-force]"
	snapshotRestoreArgs = "FILE [-yes]"
)

func runSnapshot(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runOneOf(ctx, "snapshot", []command{
		{"save", snapshotSaveArgs, "keep the cluster's routes, pools and backends in a file", runSnapshotSave},
		{"restore", snapshotRestoreArgs, "put those of a file in place of the cluster's", runSnapshotRestore},
		{"inspect", "FILE", "check a file and show what it holds; asks no node", runSnapshotInspect},
	}, args, stdout, stderr)
}

func runSnapshotSave(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("snapshot save", snapshotSaveArgs, stdout)
	stale := c.flags.Bool("stale", false, "save what the node has, even if it may be old; works without quorum")
	force := c.flags.Bool("force", false, "overwrite the file if it is there")
	words, err := c.parse(args, 1, 1)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := mayWrite(words[0], *force); err != nil { // before the node is asked
		return err
	}
	data, err := client.Snapshot(ctx, *stale)
	if err != nil {
		return err
	}
	s, err := admin.ReadSnapshot(data)
	if err != nil {
		return fmt.Errorf("cannot use the answer of %s: %w", c.admin, err)
	}
	if err := writeSnapshot(words[0], data, *force); err != nil {
		return err
	}
	saved := map[string]any{"file": words[0], "cluster_id": s.ClusterID, "index": s.Index, "counts": s.Counts}
	return c.print(saved, func(w io.Writer) {
		fmt.Fprintf(w, "saved %s of cluster %s at index %d in %s\n", describeCounts(s.Counts), s.ClusterID, s.Index, words[0])
	})
}

// mayWrite refuses a file that is there, unless it may be overwritten.
func mayWrite(path string, force bool) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && force:
		return nil
	case err == nil:
		return fmt.Errorf("%s is there already: choose another name, or overwrite it with -force", path)
	}
	return fmt.Errorf("cannot write the snapshot: %w", err)
}

// writeSnapshot writes the file whole or not at all, for its owner only.
func writeSnapshot(path string, data []byte, force bool) error {
	if err := mayWrite(path, force); err != nil {
		return err
	}
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("cannot write the snapshot: %w", err)
	}
	defer file.Cleanup()
	if _, err = file.Write(append(data, '\n')); err == nil {
		err = file.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("cannot write the snapshot: %w", err)
	}
	return nil
}

func readSnapshot(path string) ([]byte, *admin.Snapshot, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the snapshot: %w", err)
	}
	s, err := admin.ReadSnapshot(data)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use %s: %w", path, err)
	}
	return data, s, nil
}

func runSnapshotRestore(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := newNodeInvocation("snapshot restore", snapshotRestoreArgs, stdout)
	sure := c.flags.Bool("yes", false, "do not ask")
	words, err := c.parse(args, 1, 1)
	if err != nil {
		return err
	}
	data, s, err := readSnapshot(words[0])
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	changes, err := announce(ctx, client, s, stderr)
	if err != nil {
		return err
	}
	if !*sure {
		if err := confirm(os.Stdin, stderr, "Restore it?"); err != nil {
			return err
		}
	}
	restored, err := client.Restore(ctx, data)
	if err != nil {
		return changeFailed(err, "restore "+words[0], "lbnode snapshot save")
	}
	answer := struct {
		*admin.Restored
		Changes []change `json:"changes"`
	}{restored, changes}
	return c.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "restored %s; the cluster is at index %d\n", describeCounts(restored.Counts), restored.Index)
	})
}

// announce tells what restoring the snapshot will change, compared with what the
// asked node has now.
func announce(ctx context.Context, client *admin.Client, s *admin.Snapshot, out io.Writer) ([]change, error) {
	data, err := client.Snapshot(ctx, true)
	if err != nil {
		return nil, err
	}
	now, err := admin.ReadSnapshot(data)
	if err != nil {
		return nil, fmt.Errorf("cannot see what the cluster has now: %w", err)
	}
	changes := changesBetween(&now.Content, &s.Content)
	fmt.Fprintf(out, "snapshot of %s, at index %d, saved %s by lbnode %s\n", s.ClusterID, s.Index, s.SavedAt, s.SavedBy)
	if s.ClusterID != now.ClusterID {
		fmt.Fprintf(out, "it is of ANOTHER cluster; this one is %s and keeps its id\n", now.ClusterID)
	}
	fmt.Fprintf(out, "now:   %s\nafter: %s\n", describeCounts(now.Counts), describeCounts(s.Counts))
	writeChanges(out, changes)
	if len(changes) == 0 {
		fmt.Fprintln(out, "nothing changes")
	}
	return changes, nil
}

func runSnapshotInspect(_ context.Context, args []string, stdout, _ io.Writer) error {
	c := newInvocation("snapshot inspect", "FILE", stdout)
	words, err := c.parse(args, 1, 1)
	if err != nil {
		return err
	}
	_, s, err := readSnapshot(words[0])
	if err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "cluster\t%s\nindex\t%d\nsaved\t%s by lbnode %s\nchecksum\tright\nholds\t%s\n",
			s.ClusterID, s.Index, s.SavedAt, s.SavedBy, describeCounts(s.Counts))
		for _, all := range changesBetween(&state.Replace{}, &s.Content) {
			fmt.Fprintf(w, "%s\t%s\n", all.What, all.After)
		}
	})
}

func describeCounts(n admin.Counts) string {
	return fmt.Sprintf("%s, %s, %s", plural(n.Pools, "pool"), plural(n.Backends, "backend"), plural(n.Routes, "route"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
