package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
)

// NewID returns 128 random bits as 32 hexadecimal digits, for nodes, clusters,
// backends and requests.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}

// isID says whether NewID could have made the id.
func isID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// identity is who this node is, kept in its data directory. The id is made once:
// a machine whose disk was wiped is a new node and cannot vote twice.
type identity struct {
	path string

	mu   sync.RWMutex
	data identityFile
}

type identityFile struct {
	ID string `json:"id"`
	// ClusterID is the cluster this node has joined, empty before that.
	ClusterID string `json:"cluster_id"`
	// Founding is true while this node bootstraps its cluster. Found true at a
	// start without Raft state, it means that the cluster was never born.
	Founding bool `json:"founding,omitempty"`
	// Recovering is set while the directory is being recovered: where it is kept as
	// it was before.
	Recovering string `json:"recovering,omitempty"`
}

// openIdentity reads the identity in dir, or makes one.
func openIdentity(dir string) (*identity, error) {
	id := &identity{path: filepath.Join(dir, "node.json")}
	data, err := readIdentity(id.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return id, id.write(identityFile{ID: NewID()})
	case err != nil:
		return nil, err
	case data.Recovering != "":
		return nil, fmt.Errorf("a recovery of %s was cut short: finish it with lbnode recover -data-dir %[1]s, or put %s back in its place", dir, data.Recovering)
	}
	id.data = data
	return id, sealFile(id.path)
}

func readIdentity(path string) (data identityFile, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return data, fmt.Errorf("cannot read the node's identity: %w", err)
	}
	if err := readSealed(text, &data); err != nil {
		return data, &damage{path, err.Error()}
	}
	if data.ID == "" {
		return data, &damage{path, "it names no node"}
	}
	return data, nil
}

// nodeID is this node's id.
func (i *identity) nodeID() string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.data.ID
}

// clusterID is the id of this node's cluster, empty if it has none yet.
func (i *identity) clusterID() string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.data.Founding {
		return ""
	}
	return i.data.ClusterID
}

// set records the cluster, on disk first.
func (i *identity) set(clusterID string, founding bool) error {
	i.mu.RLock()
	next := i.data
	i.mu.RUnlock()
	next.ClusterID, next.Founding = clusterID, founding
	return i.write(next)
}

// founding is the cluster that this node is about to found, or was when it died;
// empty if none.
func (i *identity) founding() string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if !i.data.Founding {
		return ""
	}
	return i.data.ClusterID
}

func (i *identity) write(next identityFile) error {
	text, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(i.path, sealJSON(append(text, '\n')), 0o600); err != nil {
		return fmt.Errorf("cannot write the node's identity: %w", err)
	}
	if err := syncDir(filepath.Dir(i.path)); err != nil { // before a log is written that belongs to it
		return fmt.Errorf("cannot write the node's identity: %w", err)
	}
	i.mu.Lock()
	i.data = next
	i.mu.Unlock()
	return nil
}

// makeDir makes the data directory and shows that it can be written.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the data directory: %w; choose another with -data-dir", err)
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return fmt.Errorf("cannot write to the data directory: %w; choose another with -data-dir", err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}
