package cluster

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// memberlist cannot change the address of its own node. So a node that moves leaves under the
// address that it had and begins another list under the new one, over the same
// transport: no port is given up.

// goodbyeWithin is how long a goodbye may take to be heard.
const goodbyeWithin = time.Second

// liveList is the list that a node goes by. Its methods are memberlist's.
type liveList struct {
	transport *gossipTransport
	config    func() *memberlist.Config // all but the transport and the events
	heard     memberlist.EventDelegate

	now atomic.Pointer[memberlist.Memberlist]

	changing sync.Mutex
	events   *listEvents // of now
	down     bool        // now has ended
	ended    bool        // there will be no other
}

// newLiveList begins the first list.
func newLiveList(transport *gossipTransport, config func() *memberlist.Config, heard memberlist.EventDelegate) (*liveList, error) {
	l := &liveList{transport: transport, config: config, heard: heard}
	return l, l.begin()
}

func (l *liveList) begin() error {
	config := l.config()
	config.Transport = lentTransport{l.transport}
	events := &listEvents{EventDelegate: l.heard}
	config.Events = events
	list, err := memberlist.Create(config)
	if err != nil {
		return err
	}
	l.now.Store(list)
	l.events, l.down = events, false
	return nil
}

// again says goodbye and begins another list, once change has changed what config is
// made of. The others are to be met anew.
func (l *liveList) again(change func()) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.ended {
		return net.ErrClosed
	}
	if !l.down {
		l.now.Load().Leave(goodbyeWithin) // who does not hear it finds out
		l.events.over.Store(true)
		l.now.Load().Shutdown()
		l.down = true
	}
	change()
	return l.begin()
}

// Join is memberlist's.
func (l *liveList) Join(existing []string) (int, error) { return l.now.Load().Join(existing) }

// Members is memberlist's.
func (l *liveList) Members() []*memberlist.Node { return l.now.Load().Members() }

// UpdateNode is memberlist's.
func (l *liveList) UpdateNode(within time.Duration) error { return l.now.Load().UpdateNode(within) }

// Leave is memberlist's.
func (l *liveList) Leave(within time.Duration) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.down {
		return net.ErrClosed
	}
	return l.now.Load().Leave(within)
}

// Shutdown is memberlist's. It ends the transport as well.
func (l *liveList) Shutdown() error {
	l.changing.Lock()
	defer l.changing.Unlock()
	l.ended, l.down = true, true
	err := l.transport.Shutdown() // first: memberlist hands what still comes to nobody
	l.now.Load().Shutdown()       // reports only what its transport does
	return err
}

// lentTransport outlives the list that uses it.
type lentTransport struct{ *gossipTransport }

// Shutdown implements memberlist.Transport.
func (lentTransport) Shutdown() error { return nil }

// listEvents passes on what a list says until it is over: its timers run on.
type listEvents struct {
	memberlist.EventDelegate
	over atomic.Bool
}

// NotifyJoin implements memberlist.EventDelegate.
func (e *listEvents) NotifyJoin(n *memberlist.Node) {
	if !e.over.Load() {
		e.EventDelegate.NotifyJoin(n)
	}
}

// NotifyLeave implements memberlist.EventDelegate.
func (e *listEvents) NotifyLeave(n *memberlist.Node) {
	if !e.over.Load() {
		e.EventDelegate.NotifyLeave(n)
	}
}

// NotifyUpdate implements memberlist.EventDelegate.
func (e *listEvents) NotifyUpdate(n *memberlist.Node) {
	if !e.over.Load() {
		e.EventDelegate.NotifyUpdate(n)
	}
}

// move has this node live at another address from now on, and change what it says of itself.
// Who was alive is met again there; who is not counts as failed until it shows.
func (g *gossip) move(ip netip.Addr, change func(*meta)) error {
	g.telling.Lock()
	defer g.telling.Unlock()
	err := g.list.again(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.own = netip.AddrPortFrom(ip, g.own.Port())
		change(&g.self)
	})
	if err != nil {
		return err
	}
	g.meetAgain()
	return nil
}

func (g *gossip) meetAgain() {
	var meeting sync.WaitGroup
	for _, m := range g.all() {
		if m.State == Alive && m.ID != g.id.nodeID() {
			meeting.Go(func() {
				if err := g.join(m.Addr); err != nil {
					g.log.Debug("a member is not met at once after moving", "peer", m.Name, "reason", reason(err))
				}
			})
		}
	}
	meeting.Wait()
	met := map[string]bool{}
	for _, n := range g.list.Members() {
		met[n.Name] = true
	}
	g.mu.Lock()
	for id, m := range g.members {
		if m.State == Alive && !met[id] {
			m.State, m.Since = Failed, time.Now()
			g.members[id] = m
		}
	}
	g.mu.Unlock()
	g.changed()
}
