package state

import "slices"

// index finds backends without a look at all of them. It belongs to a machine, is always of
// its newest view, and is no part of what the machine says.
type index struct {
	ids   map[string]placed // of the whole cluster
	names map[inPool]*Backend
	addrs map[inPool]*Backend
}

// placed is a backend with the name of its pool.
type placed struct {
	pool    string
	backend *Backend
}

// inPool is what is unique in a pool: a name, or an address.
type inPool struct{ pool, word string }

func newIndex(c *content) *index {
	x := &index{map[string]placed{}, map[inPool]*Backend{}, map[inPool]*Backend{}}
	x.follow(&content{}, c)
	return x
}

// follow goes on from one content to the next. Of a pool that changed, the backends that are
// still in their place are passed over with one comparison of pointers each.
func (x *index) follow(old, now *content) {
	gone, come := changed(old.Pools, now.Pools)
	for _, p := range gone {
		i, stays := now.findPool(p.Name)
		if !stays {
			x.leave(p.Name, p.Backends)
			continue
		}
		gone, _ := changed(p.Backends, now.Pools[i].Backends)
		x.leave(p.Name, gone)
	}
	for _, p := range come {
		come := p.Backends
		if i, was := old.findPool(p.Name); was {
			_, come = changed(old.Pools[i].Backends, p.Backends)
		}
		x.enter(p.Name, come)
	}
}

func (x *index) leave(pool string, backends []*Backend) {
	for _, b := range backends {
		delete(x.ids, b.ID)
		delete(x.names, inPool{pool, b.Name})
		delete(x.addrs, inPool{pool, b.Addr()})
	}
}

func (x *index) enter(pool string, backends []*Backend) {
	for _, b := range backends {
		x.ids[b.ID] = placed{pool, b}
		x.names[inPool{pool, b.Name}] = b
		x.addrs[inPool{pool, b.Addr()}] = b
	}
}

// changed gives what is not the same pointer in two lists: the part between what they
// have in common at both ends, and in it, if the lists are equally long, only what differs.
func changed[T any](old, now []*T) (gone, come []*T) {
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	if len(old) != len(now) {
		return old, now
	}
	for i := range old {
		if old[i] != now[i] {
			gone, come = append(gone, old[i]), append(come, now[i])
		}
	}
	return gone, come
}

// draft is the content that an operation makes of the one before, with the index of that.
type draft struct {
	content
	index *index
}

// backendToChange returns a copy of the pool and the place of the backend in it.
func (c *draft) backendToChange(poolName, name string) (*Pool, int, *Error) {
	at, found := c.findPool(poolName)
	if !found {
		return nil, 0, notFound("pool", poolName)
	}
	b := c.index.names[inPool{poolName, name}]
	if b == nil {
		return nil, 0, notFound("backend", name)
	}
	return c.Pools[at].clone(), slices.Index(c.Pools[at].Backends, b), nil
}

// taken says why a backend may not go into a pool: its name or address is there already, or
// its id is anywhere.
func (x *index) taken(pool string, b *Backend) *Error {
	if x.names[inPool{pool, b.Name}] != nil {
		return exists("name", "backend", b.Name)
	}
	if other := x.addrs[inPool{pool, b.Addr()}]; other != nil {
		return other.sameAddress(b)
	}
	if _, found := x.ids[b.ID]; found {
		return exists("id", "backend", b.ID)
	}
	return nil
}
