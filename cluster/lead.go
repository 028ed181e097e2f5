package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	autopilot "github.com/hashicorp/raft-autopilot"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// tenure is one time in office as leader.
type tenure struct {
	cancel context.CancelFunc
	duties sync.WaitGroup
}

// leaderLoop does the leader's duties for as long as this node is the leader.
func (c *Cluster) leaderLoop(ctx context.Context) {
	var now *tenure
	for {
		leads := false
		select {
		case <-ctx.Done():
		case leads = <-c.leading:
		}
		if now != nil {
			now.cancel()
			now.duties.Wait()
			now = nil
			c.observers.clear()
		}
		if ctx.Err() != nil {
			return
		}
		if leads {
			now = c.beginTenure(ctx)
		}
	}
}

func (c *Cluster) beginTenure(ctx context.Context) *tenure {
	ctx, cancel := context.WithCancel(ctx)
	t := &tenure{cancel: cancel}
	t.duties.Go(func() { c.lead(ctx) })
	return t
}

// lead does the duties of one term.
func (c *Cluster) lead(ctx context.Context) {
	for err := c.takeOffice(ctx); err != nil; err = c.takeOffice(ctx) {
		if ctx.Err() == nil {
			c.log.Warn("cannot take office as leader; trying again", "error", err)
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
	pilot := autopilot.New(c.raft(), (*pilotView)(c),
		autopilot.WithLogger(c.library.hclog("autopilot")),
		autopilot.WithPromoter(voterLimit{&autopilot.StablePromoter{}}),
		autopilot.WithUpdateInterval(time.Second),
		autopilot.WithReconcileInterval(2*time.Second))
	pilot.Start(ctx)
	defer func() { <-pilot.Stop() }()
	var duties sync.WaitGroup
	duties.Go(func() { c.reconcileLoop(ctx) })
	duties.Go(func() { c.judgeLoop(ctx) })
	duties.Go(func() { c.refusalLoop(ctx) })
	duties.Wait()
}

// takeOffice waits until this node has applied all that earlier leaders
// committed, and gives a new cluster its id and its first backends.
func (c *Cluster) takeOffice(ctx context.Context) error {
	if err := await(ctx, c.raft().Barrier(officeWithin)); err != nil {
		return fmt.Errorf("cannot catch up with the log: %w", err)
	}
	view := c.fsm.view()
	switch own := c.id.clusterID(); {
	case own == "":
		return errors.New("the founding is not on disk yet")
	case view.ClusterID == own:
	case view.ClusterID == "":
		if err := c.applyOp(ctx, &state.InitCluster{ClusterID: own}); err != nil {
			return err
		}
	default:
		return fmt.Errorf("the log is of cluster %s, this node of %s", view.ClusterID, own)
	}
	if len(c.cfg.Seed) == 0 || view.HadPools {
		return nil
	}
	err := c.applyOp(ctx, &state.Seed{Backends: c.cfg.Seed})
	if refused := (*state.Error)(nil); errors.As(err, &refused) { // the leader's duties do not depend on it
		c.log.Error("cannot seed the cluster: correct -backend, or add the backends by command", "error", refused)
		return nil
	}
	return err
}

// applyOp commits an operation of the leader's own.
func (c *Cluster) applyOp(ctx context.Context, op state.Op) error {
	ctx, cancel := context.WithTimeout(ctx, officeWithin)
	defer cancel()
	data, err := state.Command{ID: NewID(), At: time.Now().UnixMilli(), Op: op}.Encode()
	if err != nil {
		return err
	}
	result, err := c.apply(ctx, data)
	if err != nil {
		return err
	}
	if result.Err != nil {
		return result.Err
	}
	return nil
}

// reconcileLoop keeps Raft's members in step with the nodes that gossip knows.
func (c *Cluster) reconcileLoop(ctx context.Context) {
	missing := map[raft.ServerID]time.Time{} // since when a member is not alive
	votes := 0
	for {
		changed := c.changes.wait()
		before := votes
		if votes = voters(c.servers()); votes == 2 && before != 2 {
			c.log.Warn(twoVoters)
		}
		if c.cfg.NonVoter { // it votes, and leads, from an earlier time; another one can take its vote
			c.handOver()
		}
		if err := c.reconcile(ctx, missing); err != nil && ctx.Err() == nil {
			c.log.Warn("cannot bring the members of raft up to date", "error", err)
		}
		if !pauseUntil(ctx, changed, reconcileEvery) {
			return
		}
	}
}

// reconcile makes at most one change for each member that is out of step. One
// that cannot be made does not keep the others waiting.
func (c *Cluster) reconcile(ctx context.Context, missing map[raft.ServerID]time.Time) error {
	servers := c.servers()
	living := c.confirmed(ctx, servers)
	gone := c.departed(servers, living, missing, time.Now())
	for _, lives := range swapped(c.id.nodeID(), servers, living) {
		if err := c.spares(lives.ID); err != nil {
			return fmt.Errorf("cannot exchange the addresses of nodes: %w", err)
		}
		gone = append(gone, lives)
	}
	for _, gone := range gone {
		c.log.Info("removing a node from raft", "id", gone.ID, "addr", gone.Address)
		if err := await(ctx, c.raft().RemoveServer(gone.ID, 0, officeWithin)); err != nil {
			return fmt.Errorf("cannot remove node %s: %w", gone.ID, err)
		}
	}
	var failed error
	for _, m := range living {
		server, isServer := findServer(c.servers(), m.ID)
		switch {
		case m.Going != "", !isServer && c.outgrown(m):
			continue
		case !isServer:
			c.log.Info("adding a node to raft", "peer", m.Name, "id", m.ID, "addr", m.RaftAddr)
		case string(server.Address) != m.RaftAddr:
			c.log.Info("a node has another address", "peer", m.Name, "id", m.ID, "from", server.Address, "to", m.RaftAddr)
		default:
			continue
		}
		if err := await(ctx, c.put(server, isServer, m)); err != nil {
			failed = fmt.Errorf("cannot add node %s: %w", m.ID, err)
		}
		if c.raft().State() != raft.Leader {
			break
		}
	}
	return failed
}

// confirmed returns the living members whom Raft has right and, of the others, those
// who have just said in person that they are who gossip says, of this cluster. So
// nobody becomes a member, or moves, because somebody played old gossip again. Who
// shares a living member's name has to wait until one of the two has ended.
func (c *Cluster) confirmed(ctx context.Context, servers []raft.Server) []member {
	alive := c.gossip.alive()
	refused := map[string]bool{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range alive {
		server, isServer := findServer(servers, m.ID)
		if m.ID == c.id.nodeID() || isServer && string(server.Address) == m.RaftAddr {
			continue
		}
		asking.Go(func() {
			hello, lives := c.meet(ctx, m)
			if lives && hello.ClusterID == m.ClusterID && (isServer || !nameTaken(alive, m)) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			refused[m.ID] = true
		})
	}
	asking.Wait()
	return slices.DeleteFunc(alive, func(m member) bool { return refused[m.ID] })
}

func nameTaken(alive []member, m member) bool {
	return slices.ContainsFunc(alive, func(other member) bool { return other.ID != m.ID && other.Name == m.Name })
}

// put adds a node without a vote, or corrects the address of one that is there.
func (c *Cluster) put(server raft.Server, isServer bool, m member) raft.Future {
	id, addr := raft.ServerID(m.ID), raft.ServerAddress(m.RaftAddr)
	if isServer && server.Suffrage == raft.Voter {
		return c.raft().AddVoter(id, addr, 0, officeWithin)
	}
	return c.raft().AddNonvoter(id, addr, 0, officeWithin)
}

// departed returns the members to remove: those that left for good, those whose
// address another node has taken, and those dead for long. Of the dead, only as
// many as leave a quorum of living voters and minVoters in all.
func (c *Cluster) departed(servers []raft.Server, living []member, missing map[raft.ServerID]time.Time, now time.Time) []raft.Server {
	alive := map[raft.ServerID]bool{}
	taken := map[string]raft.ServerID{}
	for _, m := range c.gossip.alive() {
		alive[raft.ServerID(m.ID)] = true
	}
	for _, m := range living {
		taken[m.RaftAddr] = raft.ServerID(m.ID)
	}
	var gone []raft.Server
	left := voters(servers)
	for _, s := range servers {
		if alive[s.ID] {
			delete(missing, s.ID)
			continue
		}
		if _, known := missing[s.ID]; !known {
			missing[s.ID] = now
		}
		m, _ := c.gossip.find(string(s.ID))
		owner := taken[string(s.Address)]
		replaced := owner != "" && owner != s.ID
		dead := now.Sub(missing[s.ID]) > removeDeadAfter && (s.Suffrage != raft.Voter || left > minVoters)
		if replaced || dead || m.State == Left && m.Going == leaves {
			gone = append(gone, s)
			if s.Suffrage == raft.Voter {
				left--
			}
		}
	}
	return gone
}

// swapped returns one of a circle of living nodes of which each now has the address
// of the next, such as two machines whose leases were exchanged. Raft refuses two
// members with one address, so each correction would wait for the other; with one
// of them taken out, to be added again at once, all can be made.
func swapped(leader string, servers []raft.Server, living []member) []raft.Server {
	now, holder := map[raft.ServerID]string{}, map[string]raft.ServerID{}
	for _, m := range living {
		now[raft.ServerID(m.ID)] = m.RaftAddr
	}
	for _, s := range servers {
		holder[string(s.Address)] = s.ID
	}
	for _, s := range servers {
		if string(s.ID) == leader || now[s.ID] == string(s.Address) {
			continue
		}
		next := s.ID
		for range servers {
			if next = holder[now[next]]; next == s.ID {
				return []raft.Server{s}
			}
		}
	}
	return nil
}

// Leave takes this node out of the cluster for good, then stops it. If it fails, with
// ErrNoLeader or ErrNeeded, nothing has changed; with ErrUnknownOutcome the cluster
// may yet go on without this node.
func (c *Cluster) Leave(ctx context.Context) error {
	if c.copied.Load() {
		return errors.New("cannot leave the cluster: this node is a copy of one that runs")
	}
	if len(c.servers()) > 1 {
		if err := c.leaveRaft(ctx); err != nil {
			return fmt.Errorf("cannot leave the cluster: %w", err)
		}
	}
	c.stopped.Do(func() { c.shutdown(leaves) })
	return nil
}

// leaveRaft asks the leader to remove this node, again if leadership moves.
func (c *Cluster) leaveRaft(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, officeWithin)
	defer cancel()
	c.tell(func(m *meta) { m.Going = leaves })
	defer func() {
		if err != nil {
			c.tell(func(m *meta) { m.Going = "" })
		}
	}()
	for unknown := false; ; {
		if c.raft().State() == raft.Leader {
			if err := c.awaitSpare(ctx, raft.ServerID(c.id.nodeID())); err != nil {
				return err // with leadership where it was
			}
		}
		c.handOver()
		err := c.askRemoval(ctx)
		if err == nil || errors.Is(err, ErrNeeded) && !unknown {
			return err
		}
		unknown = unknown || errors.Is(err, ErrUnknownOutcome)
		if !pause(ctx, retryAfter) {
			return fmt.Errorf("%w: %w", outcome(unknown), err)
		}
	}
}

func (c *Cluster) askRemoval(ctx context.Context) error {
	switch id, addr := c.leader(); id {
	case "":
		return errors.New(nameOr(c.degraded(), "none is known"))
	case c.id.nodeID():
		return errors.New("no other voter that answers has taken over from this node, which leads")
	default:
		return c.calls.call(ctx, named(id, addr), removePath, removeCall{ID: c.id.nodeID()}, &none{})
	}
}

// remove answers a node that leaves.
func (c *Cluster) remove(ctx context.Context, call removeCall) error {
	if c.raft().State() != raft.Leader {
		return errNotLeader
	}
	if err := c.hearsLeaving(call.ID); err != nil {
		return err
	}
	c.log.Info("removing a node that leaves", "id", call.ID)
	return c.takeOut(ctx, raft.ServerID(call.ID))
}

// takeOut removes a node from Raft if the cluster can do without it.
func (c *Cluster) takeOut(ctx context.Context, id raft.ServerID) error {
	if err := c.awaitSpare(ctx, id); err != nil {
		return err
	}
	err := await(ctx, c.raft().RemoveServer(id, 0, officeWithin))
	switch {
	case err == nil:
		return nil
	case untaken(err):
		return fmt.Errorf("%w: %w", errNotLeader, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// awaitSpare gives the others some time to answer: the leader may be a new one.
func (c *Cluster) awaitSpare(ctx context.Context, id raft.ServerID) error {
	ctx, cancel := context.WithTimeout(ctx, c.silence())
	defer cancel()
	err := c.spares(id)
	for err != nil && pause(ctx, askAgain) {
		err = c.spares(id)
	}
	return err
}

// spares says why the cluster cannot do without a node, nil if it can. Raft goes by its new members as soon as they
// are in the log: with too few of them that answer, it could not even agree on that.
func (c *Cluster) spares(id raft.ServerID) error {
	if s, ok := findServer(c.servers(), string(id)); !ok || s.Suffrage != raft.Voter {
		return nil
	}
	remain, silent := 0, []string{}
	for _, s := range c.servers() {
		if s.ID == id || s.Suffrage != raft.Voter {
			continue
		}
		if remain++; !c.inTouch(s.ID) {
			m, _ := c.gossip.find(string(s.ID))
			silent = append(silent, nameOr(m.Name, string(s.ID)))
		}
	}
	if answering := remain - len(silent); 2*answering > remain {
		return nil
	}
	return fmt.Errorf("%w: %d voters would remain, of which %s would not answer; start that again first, or wait until it is removed from the cluster",
		ErrNeeded, remain, strings.Join(silent, " and "))
}

// inTouch says whether a voter has answered this leader lately.
func (c *Cluster) inTouch(id raft.ServerID) bool {
	return string(id) == c.id.nodeID() || c.replica.Load().transport.answeredSince(id, time.Now().Add(-c.silence()))
}

// silence is how long no answer means nothing.
func (c *Cluster) silence() time.Duration {
	return time.Duration(c.cfg.RaftMultiplier) * raft.DefaultConfig().HeartbeatTimeout
}
