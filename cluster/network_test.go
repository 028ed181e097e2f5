package cluster

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// network lies between the nodes of a cluster under test, which it knows by their
// Raft addresses. It breaks their connections, and delays or holds back what these
// carry, each way by itself.
type network struct {
	changed *broadcast // there are other rules
	pumping sync.WaitGroup

	mu     sync.Mutex
	gossip map[string]string // the Raft address of the node that gossips at one
	rules  map[*ruling]bool
	wires  map[*wire]bool
	closed bool
}

// ruling says what becomes of what one node sends to another.
type ruling func(from, to string) passage

// passage is how data gets from one node to another.
type passage struct {
	cut   bool          // not at all: connections break and none come up
	held  bool          // not now: once it may, all of it does, in order
	delay time.Duration // so much later
	// gossip is lost, too, while all else is cut or held.
	gossip bool
}

// wire is one connection between two nodes.
type wire struct {
	from, to string // who opened it, and to whom
	real     net.Conn
	far      net.Conn // the node's end is a pipe, and this its other end
}

func newNetwork() *network {
	return &network{changed: newBroadcast(), gossip: map[string]string{}, rules: map[*ruling]bool{}, wires: map[*wire]bool{}}
}

// add puts a rule beside those that there are; lift takes it away.
func (n *network) add(rule ruling) (lift func()) {
	n.mu.Lock()
	n.rules[&rule] = true
	for w := range n.wires {
		if n.passage(w.from, w.to).cut || n.passage(w.to, w.from).cut {
			w.real.Close()
			w.far.Close()
			delete(n.wires, w)
		}
	}
	n.mu.Unlock()
	n.changed.send()
	return func() {
		n.mu.Lock()
		delete(n.rules, &rule)
		n.mu.Unlock()
		n.changed.send()
	}
}

// passage is what all rules together say. The caller holds mu.
func (n *network) passage(from, to string) passage {
	all := passage{cut: n.closed}
	for rule := range n.rules {
		p := (*rule)(from, to)
		all.cut, all.held, all.delay = all.cut || p.cut, all.held || p.held, all.delay+p.delay
		all.gossip = all.gossip || p.gossip && (p.cut || p.held)
	}
	return all
}

// dialed returns the hook for the connections that from opens.
func (n *network) dialed(from string) func(to string, conn net.Conn) (net.Conn, error) {
	return func(to string, conn net.Conn) (net.Conn, error) { return n.connect(from, to, conn) }
}

func (n *network) connect(from, to string, conn net.Conn) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if there, back := n.passage(from, to), n.passage(to, from); there.cut || there.held || back.cut || back.held {
		return nil, syscall.EHOSTUNREACH
	}
	near, far := net.Pipe()
	w := &wire{from, to, conn, far}
	n.wires[w] = true
	n.pumping.Go(func() { n.pump(conn, far, from, to) })
	n.pumping.Go(func() { n.pump(far, conn, to, from); n.forget(w) })
	return near, nil
}

func (n *network) forget(w *wire) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.wires, w)
}

// attach lets the network lose what a node gossips, once it has been opened.
func (n *network) attach(node *node) {
	n.mu.Lock()
	n.gossip[node.cfg.Bind] = node.cfg.Raft
	n.mu.Unlock()
	lost := func(addr string, tcp bool) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		from, to := node.cfg.Raft, n.gossip[addr]
		return n.passage(from, to).gossip || tcp && n.passage(to, from).gossip
	}
	node.gossip.transport.cut.Store(&lost)
}

// parcel is data under way.
type parcel struct {
	data []byte
	sent time.Time
}

// pump carries data from one end to the other until either is closed. What was sent
// before that still arrives.
func (n *network) pump(out, in net.Conn, from, to string) {
	defer out.Close()
	parcels := make(chan parcel, 256)
	n.pumping.Go(func() { take(in, parcels) })
	for p := range parcels {
		n.await(p.sent, from, to)
		if _, err := out.Write(p.data); err != nil {
			in.Close() // ends take
		}
	}
}

func take(in net.Conn, parcels chan<- parcel) {
	defer close(parcels)
	for {
		data := make([]byte, 16<<10)
		size, err := in.Read(data)
		if size > 0 {
			parcels <- parcel{data[:size], time.Now()}
		}
		if err != nil {
			return
		}
	}
}

// await returns when data that was sent then may arrive, or never will.
func (n *network) await(sent time.Time, from, to string) {
	for {
		changed := n.changed.wait()
		n.mu.Lock()
		p := n.passage(from, to)
		n.mu.Unlock()
		left := time.Until(sent.Add(p.delay))
		if p.cut || !p.held && left <= 0 {
			return
		}
		due := time.NewTimer(left)
		if p.held {
			due.Stop()
		}
		select {
		case <-changed:
		case <-due.C:
		}
		due.Stop()
	}
}

// close ends all connections and waits until nothing is under way.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.add(func(string, string) passage { return passage{cut: true} })
	n.pumping.Wait()
}
