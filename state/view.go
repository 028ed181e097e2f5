package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// View is one immutable picture of all replicated facts. Readers may keep it as
// long as they like and must not write to anything that hangs on it.
//
// Views share what did not change between them: a pool that two views have in
// common untouched is the same pointer in both.
type View struct {
	// Index is the log index of the command that made this view; 0 is the view
	// of an empty cluster.
	Index uint64
	content
	digest func() string
}

// content is what a View says, apart from when it was made.
type content struct {
	ClusterID string  `json:"cluster_id"`
	Routes    []Route `json:"routes"` // sorted by host, then path
	Pools     []*Pool `json:"pools"`  // sorted by name
	// HadPools is true once there was a pool, although all may be gone: a cluster
	// that was emptied is not seeded again.
	HadPools bool `json:"had_pools"`
}

func newView(index uint64, c content) *View {
	return &View{Index: index, content: c, digest: sync.OnceValue(c.digest)}
}

// EmptyView is the view of a cluster in which nothing was ever agreed.
func EmptyView() *View { return newView(0, content{}) }

// Digest identifies the content of the view whatever its index: 32 hexadecimal
// digits, equal on every node that has the same facts.
func (v *View) Digest() string { return v.digest() }

func (c content) digest() string {
	data, err := json.Marshal(c)
	if err != nil { // strings, integers and durations always marshal
		panic("state: cannot encode a view: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// Pool returns the pool of that name, nil if there is none.
func (v *View) Pool(name string) *Pool {
	if i, ok := v.findPool(name); ok {
		return v.Pools[i]
	}
	return nil
}

// Backend returns the backend of that name, nil if there is none.
func (p *Pool) Backend(name string) *Backend {
	if i := p.findBackend(name); i >= 0 {
		return p.Backends[i]
	}
	return nil
}

func (c *content) findPool(name string) (int, bool) {
	return slices.BinarySearchFunc(c.Pools, name, func(p *Pool, name string) int {
		return cmp.Compare(p.Name, name)
	})
}

func (c *content) findRoute(r Route) (int, bool) {
	return slices.BinarySearchFunc(c.Routes, r, Route.compare)
}

func (r Route) compare(other Route) int {
	return cmp.Or(cmp.Compare(r.Host, other.Host), cmp.Compare(r.Path, other.Path))
}

func (p *Pool) findBackend(name string) int {
	return slices.IndexFunc(p.Backends, func(b *Backend) bool { return b.Name == name })
}

// check says whether pools and routes are in the order that lookups rely on.
func (c *content) check() error {
	for i, p := range c.Pools {
		if p == nil || i > 0 && c.Pools[i-1].Name >= p.Name {
			return fmt.Errorf("pool %d is missing or out of order", i)
		}
		if at := slices.Index(p.Backends, nil); at >= 0 {
			return fmt.Errorf("backend %d of pool %s is missing", at, p.Name)
		}
	}
	for i, r := range c.Routes {
		if i > 0 && c.Routes[i-1].compare(r) >= 0 {
			return fmt.Errorf("route %d is out of order", i)
		}
	}
	return nil
}

// putPool gives c a pool slice of its own with p in it, so that older views keep
// theirs.
func (c *content) putPool(p *Pool) {
	c.HadPools = true
	i, found := c.findPool(p.Name)
	if !found {
		c.Pools = slices.Insert(slices.Clone(c.Pools), i, p)
		return
	}
	c.Pools = slices.Clone(c.Pools)
	c.Pools[i] = p
}

// without gives a new slice that lacks element i. The last element leaves nil, as
// in a view that never had one: the same facts have the same digest, whatever
// the way to them.
func without[T any](s []T, i int) []T { return slices.Concat(s[:i], s[i+1:]) }

// clone copies a pool so that other backends can be put into it.
func (p *Pool) clone() *Pool {
	copied := *p
	copied.Backends = slices.Clone(p.Backends)
	return &copied
}
