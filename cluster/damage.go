package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/google/renameio/v2"
)

// A node can do without the view kept on disk and without some snapshots: what is
// damaged of these is set aside. It cannot do without its log, its term and vote, and who
// it is. With less than it has told others it could vote twice, and a majority could be one
// that lacks what was acknowledged. So it ends and has no other way back than as a new node.

// damage is what is wrong with a file that this node cannot do without.
type damage struct{ path, what string }

func (d *damage) Error() string { return d.path + " is damaged: " + d.what }

// wayOut adds to damage whose data it is and what to do. Other errors stay as they are.
func (c *Cluster) wayOut(err error) error {
	var d *damage
	if !errors.As(err, &d) {
		return err
	}
	dir := c.cfg.DataDir
	others, known := otherPeers(dir)
	if known && len(others) == 0 {
		return fmt.Errorf("%w; %s, which is the only one: lbnode recover -data-dir %s says what of it can still be used", err, ownerOfData(dir), dir)
	}
	with := ""
	switch {
	case len(c.cfg.Join) > 0:
	case known: // alone it would found another cluster
		with = " with -join " + others[0].Addr.String()
	default:
		with = " with -join and the address of one that is well"
	}
	return fmt.Errorf("%w; %s. While most of its nodes are well, they have all that was agreed: mv %s %s, then start this node again%s, and it joins them as a new one. "+
		"If they are lost, too: lbnode recover -data-dir %[3]s", err, ownerOfData(dir), dir, freeName(dir, "damaged"), with)
}

// otherPeers are the nodes that this one knew last, known if it could tell.
func otherPeers(dir string) (others []keptPeer, known bool) {
	text, err := os.ReadFile(filepath.Join(dir, "peers.json"))
	if err != nil || json.Unmarshal(text, &others) != nil {
		return nil, false
	}
	id, err := readIdentity(filepath.Join(dir, "node.json"))
	others = slices.DeleteFunc(others, func(p keptPeer) bool { return err == nil && p.ID == id.ID })
	return others, err == nil
}

// ownerOfData says what is known of the node that a directory belongs to.
func ownerOfData(dir string) string {
	id, err := readIdentity(filepath.Join(dir, "node.json"))
	if err != nil {
		return "which node this was is not known"
	}
	of := fmt.Sprintf("it is of node %s in cluster %s", id.ID, cmp.Or(id.ClusterID, "none"))
	if view, err := readView(filepath.Join(dir, "view.json")); err == nil && view != nil {
		of += fmt.Sprintf(", whose view on disk is of index %d", view.Index)
	}
	return of
}

// freeName is the first name after the suffix that is free: dir.suffix-1 or a higher one.
func freeName(dir, suffix string) string {
	for n := 1; ; n++ {
		name := dir + "." + suffix + "-" + strconv.Itoa(n)
		if _, err := os.Lstat(name); err != nil {
			return name
		}
	}
}

// setAside moves a damaged file or directory that the node can do without into damaged/
// of its data directory, where it is in nobody's way.
func setAside(dir, path string) (to string, err error) {
	to = filepath.Join(dir, "damaged", filepath.Base(path))
	err = os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.RemoveAll(to)
	}
	if err == nil {
		err = os.Rename(path, to)
	}
	if err != nil {
		return "", fmt.Errorf("cannot set the damaged %s aside: %w", path, err)
	}
	return to, nil
}

// termFile is term.json: the newest term that this node took part in. A log of an
// older term is not the last that it had.
type termFile struct {
	path string

	mu   sync.Mutex
	term uint64
}

type termText struct {
	Term uint64 `json:"term"`
}

// open compares the file with the term in the log, and makes it where there is none.
func (f *termFile) open(logPath string, inLog uint64, log *slog.Logger) error {
	dir := filepath.Dir(logPath)
	f.path = filepath.Join(dir, "term.json")
	kept, err := f.read(dir, log)
	switch {
	case err != nil:
		return err
	case kept > inLog:
		return &damage{logPath, fmt.Sprintf("it is of term %d, but this node took part in term %d: it is an older one, or was emptied", inLog, kept)}
	case kept < inLog:
		return f.write(inLog)
	}
	f.term = kept
	return nil
}

// read returns the term in the file, 0 if there is none. Without an identity beside it, the
// file is of a node that is no more.
func (f *termFile) read(dir string, log *slog.Logger) (uint64, error) {
	if _, err := os.Stat(filepath.Join(dir, "node.json")); errors.Is(err, fs.ErrNotExist) {
		return 0, os.RemoveAll(f.path)
	}
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the node's term: %w", err)
	}
	var kept termText
	if err := readSealed(text, &kept); err != nil {
		to, failed := setAside(dir, f.path)
		if failed != nil {
			return 0, failed
		}
		log.Warn("the term kept beside the log is damaged; that of the log counts", "file", f.path, "error", err, "set_aside", to)
		return 0, nil
	}
	return kept.Term, nil
}

// keep stores a term by store and in the file. There it is never newer than in the log,
// whenever the process ends.
func (f *termFile) keep(term uint64, store func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term < f.term { // of a cluster that was never born
		return cmp.Or(f.write(term), store())
	}
	if err := store(); err != nil || term == f.term {
		return err
	}
	return f.write(term)
}

func (f *termFile) write(term uint64) error {
	text, err := json.Marshal(termText{term})
	if err == nil {
		err = renameio.WriteFile(f.path, sealJSON(append(text, '\n')), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the node's term: %w", err)
	}
	f.term = term
	return nil
}
