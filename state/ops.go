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

func (op *InitCluster) apply(c *draft, _ int64) *Error {
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

func (op *Seed) apply(c *draft, at int64) *Error {
	if c.HadPools {
		return nil
	}
	if len(op.Backends) == 0 {
		return nil
	}
	pool := Pool{Name: DefaultPool}.withDefaults()
	_, err := c.addBackends(&pool, pointers(op.Backends), at)
	return err
}

// CreatePool makes a pool, with any backends it names.
type CreatePool struct {
	Pool Pool `json:"pool"`
}

func (*CreatePool) kind() string { return "create_pool" }

func (op *CreatePool) apply(c *draft, at int64) *Error {
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

func (op *UpdatePool) apply(c *draft, _ int64) *Error {
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

func (op *DeletePool) apply(c *draft, _ int64) *Error {
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

func (op *AddBackend) apply(c *draft, at int64) *Error {
	pool, err := c.poolForBackend(op.Pool)
	if err != nil {
		return err
	}
	_, err = c.addBackends(pool, []*Backend{&op.Backend}, at)
	return err
}

// addBackends puts backends at the end of a pool that is not shared with any view
// yet, and the pool into c. The first one that may not go in is returned with the
// reason.
func (c *draft) addBackends(pool *Pool, backends []*Backend, at int64) (int, *Error) {
	if len(pool.Backends)+len(backends) > maxBackends {
		return len(backends) - 1, invalid("name", "is one too many: a pool has %d backends at most; put the others into another pool, with a route of its own", maxBackends)
	}
	made := newIndex(&content{})
	for i, given := range backends {
		b, err := given.fit(at)
		if err == nil {
			err = c.index.taken(pool.Name, b)
		}
		if err == nil {
			err = made.taken(pool.Name, b)
		}
		if err != nil {
			return i, err
		}
		made.enter(pool.Name, []*Backend{b})
		pool.Backends = append(pool.Backends, b)
	}
	c.putPool(pool)
	return 0, nil
}

// fit gives the backend as it goes into a pool, if it may.
func (b *Backend) fit(at int64) (*Backend, *Error) {
	if b == nil {
		return nil, invalid("name", "is missing: a backend must not be null")
	}
	made := b.withDefaults()
	made.begin(at)
	return &made, made.validate()
}

func pointers(backends []Backend) []*Backend {
	list := make([]*Backend, len(backends))
	for i := range backends {
		list[i] = &backends[i]
	}
	return list
}

// poolForBackend returns a copy of the pool for a new backend to go into.
func (c *draft) poolForBackend(name string) (*Pool, *Error) {
	if i, found := c.findPool(name); found {
		return c.Pools[i].clone(), nil
	}
	if name != DefaultPool {
		return nil, notFound("pool", name)
	}
	pool := Pool{Name: DefaultPool}.withDefaults()
	return &pool, nil
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

func (op *UpdateBackend) apply(c *draft, at int64) *Error {
	pool, i, err := c.backendToChange(op.Pool, op.Name)
	if err != nil {
		return err
	}
	old := pool.Backends[i]
	b := op.Patch.over(*old)
	if op.Primary {
		b.Backup = false
	}
	if err := b.validate(); err != nil {
		return err
	}
	if b.startsAgain(old) {
		b.begin(at)
	}
	if other := c.index.addrs[inPool{pool.Name, b.Addr()}]; other != nil && other != old {
		return other.sameAddress(&b)
	}
	pool.Backends[i] = &b
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

func (op *RemoveBackend) apply(c *draft, _ int64) *Error {
	pool, i, err := c.backendToChange(op.Pool, op.Name)
	if err != nil {
		return err
	}
	pool.Backends = without(pool.Backends, i)
	c.putPool(pool)
	return nil
}

// PutRoute adds a route, or sends an existing one to another pool.
type PutRoute struct {
	Route Route `json:"route"`
}

func (*PutRoute) kind() string { return "put_route" }

func (op *PutRoute) apply(c *draft, _ int64) *Error {
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

func (op *RemoveRoute) apply(c *draft, _ int64) *Error {
	route := Route{Host: op.Host, Path: op.Path}.canonical()
	i, found := c.findRoute(route)
	if !found {
		return notFound("route", route.Host+route.Path)
	}
	c.Routes = without(c.Routes, i)
	return nil
}
