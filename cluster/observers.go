package cluster

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// maxObservers is how many nodes probe one backend.
const maxObservers = 3

// electorate is the living nodes, of which each backend's observers are chosen.
// Their ids are hashed once, because all backends are gone through at each view,
// report and change of the members.
type electorate []elector

type elector struct {
	id    string
	hash  uint64
	score uint64 // for the backend in question
}

func newElectorate(alive []string) electorate {
	e := make(electorate, len(alive))
	for i, id := range alive {
		e[i] = elector{id: id, hash: hash(id)}
	}
	return e
}

// observers chooses the nodes that probe a backend by rendezvous hashing
// (Thaler and Ravishankar, 1998): every node computes the same, and a node that
// comes or goes moves only its own share. The best comes first.
func (e electorate) observers(backendID string) []string {
	backend := hash(backendID)
	var best [maxObservers]elector
	n := 0
	for _, next := range e {
		next.score = scatter(backend + next.hash)
		n = min(n+1, maxObservers)
		place := n - 1
		if best[place].id != "" && !next.beats(best[place]) {
			continue
		}
		for ; place > 0 && next.beats(best[place-1]); place-- {
			best[place] = best[place-1]
		}
		best[place] = next
	}
	chosen := make([]string, n)
	for i := range chosen {
		chosen[i] = best[i].id
	}
	return chosen
}

func (e elector) beats(other elector) bool {
	return cmp.Or(cmp.Compare(e.score, other.score), cmp.Compare(other.id, e.id)) > 0
}

// hash of an id. FNV alone differs little where only the last bytes do.
func hash(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return scatter(h.Sum64())
}

// scatter is the finaliser of MurmurHash3.
func scatter(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// Observes returns a function that says whether this node is to probe a backend,
// as the living nodes are now.
func (c *Cluster) Observes() func(backendID string) bool {
	alive, self := newElectorate(c.aliveIDs()), c.id.nodeID()
	return func(backendID string) bool { return slices.Contains(alive.observers(backendID), self) }
}

func (c *Cluster) aliveIDs() []string {
	alive := c.gossip.alive()
	ids := make([]string, len(alive))
	for i, m := range alive {
		ids[i] = m.ID
	}
	return ids
}
