package state

import (
	"fmt"
	"slices"
)

// newOp returns an empty operation of that kind to decode into, nil if there is
// no such kind.
func newOp(kind string) Op {
	for _, op := range []Op{
		&InitCluster{}, &Seed{},
		&CreatePool{}, &UpdatePool{}, &DeletePool{},
		&AddBackend{}, &UpdateBackend{}, &RemoveBackend{},
		&PutRoute{}, &RemoveRoute{},
		&SetHealth{},
		&Replace{},
	} {
		if op.kind() == kind {
			return op
		}
	}
	return nil
}

// InitCluster gives a new cluster its id. It is the first command of every
// cluster; a second one with the same id changes nothing.
type InitCluster struct {
	ClusterID string `json:"cluster_id"`
}

func (*InitCluster) kind() string { return "init_cluster" }

func (op *InitCluster) apply(c *content, _ int64) *Error {
	if op.ClusterID == "" {
		return invalid("cluster_id", "must not be empty")
	}
	if c.ClusterID != "" && c.ClusterID != op.ClusterID {
		return &Error{Code: Conflict, Field: "cluster_id", Message: "the cluster already has the id " + c.ClusterID}
	}
	c.ClusterID = op.ClusterID
	return nil
}

// Seed adds backends to the default pool of a cluster that has had no pool yet,
// and changes nothing otherwise.
type Seed struct {
	Backends []Backend `json:"backends"`
}

func (*Seed) kind() string { return "seed" }

func (op *Seed) apply(c *content, at int64) *Error {
	if c.HadPools {
		return nil
	}
	if len(op.Backends) == 0 {
		return nil
	}
	pool := Pool{Name: DefaultPool}.withDefaults()
	_, err := c.addBackends(&pool, op.Backends, at)
	return err
}

// CreatePool makes a pool, with any backends it names.
type CreatePool struct {
	Pool Pool `json:"pool"`
}

func (*CreatePool) kind() string { return "create_pool" }

func (op *CreatePool) apply(c *content, at int64) *Error {
	if _, found := c.findPool(op.Pool.Name); found {
		return exists("name", "pool", op.Pool.Name)
	}
	pool := op.Pool.withDefaults()
	pool.Backends = nil
	if err := pool.validate(); err != nil {
		return err
	}
	if i, err := c.addBackends(&pool, op.Pool.Backends, at); err != nil {
		err.Field = fmt.Sprintf("backends[%d].%s", i, err.Field)
		return err
	}
	return nil
}

// UpdatePool changes what Pool names of the pool with that name, backends aside.
type UpdatePool struct {
	Pool Pool `json:"pool"`
}

func (*UpdatePool) kind() string { return "update_pool" }

func (op *UpdatePool) apply(c *content, _ int64) *Error {
	i, found := c.findPool(op.Pool.Name)
	if !found {
		return notFound("pool", op.Pool.Name)
	}
	pool := *c.Pools[i]
	pool.Settings = op.Pool.Settings.over(pool.Settings)
	if err := pool.validate(); err != nil {
		return err
	}
	pool.forgetAgents()
	c.putPool(&pool)
	return nil
}

// DeletePool removes a pool and its backends. A pool that a route names stays.
type DeletePool struct {
	Name string `json:"name"`
}

func (*DeletePool) kind() string { return "delete_pool" }

func (op *DeletePool) apply(c *content, _ int64) *Error {
	i, found := c.findPool(op.Name)
	if !found {
		return notFound("pool", op.Name)
	}
	for _, r := range c.Routes {
		if r.Pool == op.Name {
			return &Error{Code: Conflict, Field: "name", Message: "pool " + op.Name + " is in use by the route " + r.Host + r.Path + "; remove the route first"}
		}
	}
	c.Pools = without(c.Pools, i)
	return nil
}

// AddBackend adds a backend at the end of a pool. The default pool is made if it
// is not there.
type AddBackend struct {
	Pool    string  `json:"pool"`
	Backend Backend `json:"backend"`
}

func (*AddBackend) kind() string { return "add_backend" }

func (op *AddBackend) apply(c *content, at int64) *Error {
	pool, err := c.poolForBackend(op.Pool)
	if err != nil {
		return err
	}
	_, err = c.addBackends(pool, []Backend{op.Backend}, at)
	return err
}

// addBackends puts backends at the end of a pool that is not shared with any view
// yet, and the pool into c. The first one that may not go in is returned with the
// reason.
func (c *content) addBackends(pool *Pool, backends []Backend, at int64) (int, *Error) {
	if i, err := pool.fill(backends, newTaken(pool, c.backendIDs()), at); err != nil {
		return i, err
	}
	c.putPool(pool)
	return 0, nil
}

func (c *content) backendIDs() map[string]bool {
	ids := map[string]bool{}
	for _, p := range c.Pools {
		for i := range p.Backends {
			ids[p.Backends[i].ID] = true
		}
	}
	return ids
}

// fill puts backends at the end of the pool, unless they repeat what is taken. The
// first one that may not go in is returned with the reason.
func (p *Pool) fill(backends []Backend, taken *taken, at int64) (int, *Error) {
	if len(p.Backends)+len(backends) > maxBackends {
		return len(backends) - 1, invalid("name", "is one too many: a pool has %d backends at most; put the others into another pool, with a route of its own", maxBackends)
	}
	for i, b := range backends {
		b = b.withDefaults()
		b.begin(at)
		if err := b.validate(); err != nil {
			return i, err
		}
		if err := taken.add(&b); err != nil {
			return i, err
		}
		p.Backends = append(p.Backends, b)
	}
	return 0, nil
}

// poolForBackend returns a copy of the pool for a new backend to go into.
func (c *content) poolForBackend(name string) (*Pool, *Error) {
	if i, found := c.findPool(name); found {
		return c.Pools[i].clone(), nil
	}
	if name != DefaultPool {
		return nil, notFound("pool", name)
	}
	pool := Pool{Name: DefaultPool}.withDefaults()
	return &pool, nil
}

// taken is what a new backend of a pool must not repeat.
type taken struct {
	names map[string]bool     // in the pool
	addrs map[string]*Backend // in the pool
	ids   map[string]bool     // in the cluster
}

func newTaken(pool *Pool, ids map[string]bool) *taken {
	t := &taken{map[string]bool{}, map[string]*Backend{}, ids}
	for i := range pool.Backends {
		b := &pool.Backends[i]
		t.names[b.Name], t.addrs[b.Addr()] = true, b
	}
	return t
}

func (t *taken) add(b *Backend) *Error {
	if t.names[b.Name] {
		return exists("name", "backend", b.Name)
	}
	if other := t.addrs[b.Addr()]; other != nil {
		return other.sameAddress(b)
	}
	if t.ids[b.ID] {
		return exists("id", "backend", b.ID)
	}
	t.names[b.Name], t.addrs[b.Addr()], t.ids[b.ID] = true, b, true
	return nil
}

// sameAddress refuses a second backend at one address: it would take a double
// share of the traffic without anyone having said so.
func (b *Backend) sameAddress(other *Backend) *Error {
	if b.Host != other.Host || b.Port != other.Port {
		return nil
	}
	return &Error{Code: Exists, Field: "url", Message: "backend " + b.Name + " of this pool already has the address " + b.Addr() + "; give it a weight instead"}
}

// UpdateBackend changes what Patch names of a backend. A backend that moves to
// another address, or comes back from maintenance, is starting again.
type UpdateBackend struct {
	Pool  string  `json:"pool"`
	Name  string  `json:"name"`
	Patch Backend `json:"patch"`
	// Primary makes a backup backend one like the others.
	Primary bool `json:"primary,omitempty"`
}

func (*UpdateBackend) kind() string { return "update_backend" }

func (op *UpdateBackend) apply(c *content, at int64) *Error {
	pool, i, err := c.backendToChange(op.Pool, op.Name)
	if err != nil {
		return err
	}
	old := pool.Backends[i]
	b := op.Patch.over(old)
	if op.Primary {
		b.Backup = false
	}
	if err := b.validate(); err != nil {
		return err
	}
	if b.startsAgain(&old) {
		b.begin(at)
	}
	for j := range pool.Backends {
		if j == i {
			continue
		}
		if err := pool.Backends[j].sameAddress(&b); err != nil {
			return err
		}
	}
	pool.Backends[i] = b
	c.putPool(pool)
	return nil
}

// startsAgain says whether what is known of old's health is of no use for b, which
// takes its place: nobody has probed it there, or of late.
func (b *Backend) startsAgain(old *Backend) bool {
	moved, back := b.URL() != old.URL(), old.Admin == Maint && b.Admin != Maint
	return moved || back
}

// RemoveBackend takes a backend out of a pool.
type RemoveBackend struct {
	Pool string `json:"pool"`
	Name string `json:"name"`
}

func (*RemoveBackend) kind() string { return "remove_backend" }

func (op *RemoveBackend) apply(c *content, _ int64) *Error {
	pool, i, err := c.backendToChange(op.Pool, op.Name)
	if err != nil {
		return err
	}
	pool.Backends = without(pool.Backends, i)
	c.putPool(pool)
	return nil
}

// backendToChange returns a copy of the pool and the place of the backend in it.
func (c *content) backendToChange(poolName, name string) (*Pool, int, *Error) {
	at, found := c.findPool(poolName)
	if !found {
		return nil, 0, notFound("pool", poolName)
	}
	i := c.Pools[at].findBackend(name)
	if i < 0 {
		return nil, 0, notFound("backend", name)
	}
	return c.Pools[at].clone(), i, nil
}

// PutRoute adds a route, or sends an existing one to another pool.
type PutRoute struct {
	Route Route `json:"route"`
}

func (*PutRoute) kind() string { return "put_route" }

func (op *PutRoute) apply(c *content, _ int64) *Error {
	route, err := c.checkRoute(op.Route)
	if err != nil {
		return err
	}
	i, found := c.findRoute(route)
	c.Routes = slices.Clone(c.Routes)
	if found {
		c.Routes[i] = route
	} else {
		c.Routes = slices.Insert(c.Routes, i, route)
	}
	return nil
}

// checkRoute gives the one spelling of a route that may go into c.
func (c *content) checkRoute(r Route) (Route, *Error) {
	r = r.canonical()
	if err := r.validate(); err != nil {
		return r, err
	}
	if _, found := c.findPool(r.Pool); !found {
		return r, notFound("pool", r.Pool)
	}
	return r, nil
}

// RemoveRoute takes the route for a host and a path away.
type RemoveRoute struct {
	Host string `json:"host"`
	Path string `json:"path"`
}

func (*RemoveRoute) kind() string { return "remove_route" }

func (op *RemoveRoute) apply(c *content, _ int64) *Error {
	route := Route{Host: op.Host, Path: op.Path}.canonical()
	i, found := c.findRoute(route)
	if !found {
		return notFound("route", route.Host+route.Path)
	}
	c.Routes = without(c.Routes, i)
	return nil
}
