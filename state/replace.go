package state

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
)

// Replace puts a whole configuration in place of the present one; the cluster
// keeps its id. A backend that is there now with the same id and URL keeps its
// health, every other one is starting.
type Replace struct {
	Routes []Route `json:"routes"`
	Pools  []Pool  `json:"pools"`
}

func (*Replace) kind() string { return "replace" }

func (op *Replace) apply(c *draft, at int64) *Error {
	// Whoever puts a configuration without pools in place wants none: HadPools
	// keeps the cluster from being seeded.
	next := content{ClusterID: c.ClusterID, HadPools: true}
	if err := next.fillPools(op.Pools, c, at); err != nil {
		return err
	}
	if err := next.fillRoutes(op.Routes); err != nil {
		return err
	}
	c.content = next
	return nil
}

// fillPools gives an empty c the pools. What old has as well is taken over: a
// backend's health, and a pool as a whole if nothing in it changes.
func (c *content) fillPools(pools []Pool, old *draft, at int64) *Error {
	filled := newIndex(&content{})
	for i, given := range pools {
		pool, err := given.filled(old.index, filled, at)
		if err != nil {
			err.Field = fmt.Sprintf("pools[%d].%s", i, err.Field)
			return err
		}
		if j, found := old.findPool(pool.Name); found && reflect.DeepEqual(pool, old.Pools[j]) {
			pool = old.Pools[j]
		}
		c.Pools = append(c.Pools, pool)
	}
	slices.SortFunc(c.Pools, func(a, b *Pool) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(c.Pools); i++ {
		if c.Pools[i].Name == c.Pools[i-1].Name {
			return exists("pools", "pool", c.Pools[i].Name)
		}
	}
	return nil
}

// filled gives the pool as it is kept. Its backends have the health of those in before with
// the same ids, and go into those that are filled so far.
func (p Pool) filled(before, filled *index, at int64) (*Pool, *Error) {
	given := p.Backends
	pool := p.withDefaults()
	pool.Backends = nil
	if err := pool.validate(); err != nil {
		return nil, err
	}
	made := draft{index: filled}
	if i, err := made.addBackends(&pool, given, at); err != nil {
		err.Field = fmt.Sprintf("backends[%d].%s", i, err.Field)
		return nil, err
	}
	filled.enter(pool.Name, pool.Backends)
	for _, b := range pool.Backends {
		if old, found := before.ids[b.ID]; found && !b.startsAgain(old.backend) {
			b.inherit(old.backend)
		}
	}
	pool.forgetAgents()
	return &pool, nil
}

// fillRoutes gives c, which has its pools, the routes.
func (c *content) fillRoutes(routes []Route) *Error {
	for i, given := range routes {
		route, err := c.checkRoute(given)
		if err != nil {
			err.Field = fmt.Sprintf("routes[%d].%s", i, err.Field)
			return err
		}
		c.Routes = append(c.Routes, route)
	}
	slices.SortFunc(c.Routes, Route.compare)
	for i := 1; i < len(c.Routes); i++ {
		if r := c.Routes[i]; r.compare(c.Routes[i-1]) == 0 {
			return exists("routes", "route", r.Host+r.Path)
		}
	}
	return nil
}
