package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"
)

// Expel takes a dead node out of Raft for good, by its name or id, without the wait after
// which the leader would do that itself. It works on any node. If it fails, with ErrNoLeader,
// ErrNoMember, ErrAlive, ErrNeeded or ErrHeldBack, nothing has changed; with
// ErrUnknownOutcome the node may yet be taken out.
func (c *Cluster) Expel(ctx context.Context, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, officeWithin)
	defer cancel()
	for unknown := false; ; {
		if why := c.degraded(); why != "" {
			return fmt.Errorf("%w: %s; without a quorum nobody can be removed: start missing nodes again, or see lbnode recover -h", outcome(unknown), why)
		}
		id, err := c.deadMember(peer)
		if unknown && errors.Is(err, ErrNoMember) {
			return nil // the try before has done it
		}
		if err == nil {
			err = c.askExpulsion(ctx, id)
		}
		if err == nil || refused(err) && !unknown {
			return err
		}
		unknown = unknown || errors.Is(err, ErrUnknownOutcome)
		if !pause(ctx, retryAfter) {
			return fmt.Errorf("%w: %w", outcome(unknown), err)
		}
	}
}

// refused says whether another try would be answered alike.
func refused(err error) bool {
	for _, e := range []error{ErrNoMember, ErrAlive, ErrNeeded, ErrHeldBack} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// deadMember finds the one member of that name, or id, that is dead.
func (c *Cluster) deadMember(peer string) (string, error) {
	var dead []string
	living := false
	for _, s := range c.servers() {
		m, _ := c.gossip.find(string(s.ID))
		switch {
		case string(s.ID) != peer && m.Name != peer:
		case m.State == Alive:
			living = true
		default:
			dead = append(dead, string(s.ID))
		}
	}
	switch {
	case len(dead) == 1:
		return dead[0], nil
	case len(dead) > 1:
		return "", fmt.Errorf("%w: several dead ones are named %s: give the id of one: %s", ErrNoMember, peer, strings.Join(dead, ", "))
	case living:
		return "", stillAlive(peer)
	}
	return "", fmt.Errorf("%w: none has the name or id %q", ErrNoMember, peer)
}

func stillAlive(peer string) error {
	return fmt.Errorf("%w: %s; let it leave with lbnode leave, or stop it first; one that has just died is known to be dead after some seconds", ErrAlive, peer)
}

func (c *Cluster) askExpulsion(ctx context.Context, id string) error {
	switch leader, addr := c.leader(); leader {
	case "":
		return errors.New("no leader is known")
	case c.id.nodeID():
		return c.expel(ctx, expelCall{ID: id})
	default:
		return c.calls.call(ctx, named(leader, addr), expelPath, expelCall{ID: id}, &none{})
	}
}

// expel is the leader's part. It asks the node itself whether it lives: gossip may have
// given up one that it cannot reach.
func (c *Cluster) expel(ctx context.Context, call expelCall) error {
	if c.raft().State() != raft.Leader {
		return errNotLeader
	}
	server, isServer := findServer(c.servers(), call.ID)
	if !isServer {
		return nil // somebody else was faster
	}
	m, known := c.gossip.find(call.ID)
	if !known {
		m = member{ID: call.ID, meta: meta{RaftAddr: string(server.Address)}}
	}
	lives := m.State == Alive
	if !lives {
		_, lives = c.meet(ctx, m)
	}
	if lives {
		return stillAlive(nameOr(m.Name, m.ID))
	}
	c.log.Info("removing a dead node from raft on request", "peer", m.Name, "id", m.ID, "addr", server.Address)
	return c.takeOut(ctx, server.ID)
}
