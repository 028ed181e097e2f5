package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// retryAfter is the pause between two tries to reach a leader.
const retryAfter = 100 * time.Millisecond

// Write is a change that somebody asks for.
type Write struct {
	// Op is what to do.
	Op state.Op
	// IfIndex, unless 0, makes the write fail with state.Stale if the view has
	// another index by then.
	IfIndex uint64
	// RequestID, unless empty, is the same for each try of one request: the write
	// takes effect once, however often it is sent. It is unique to the request and
	// its content.
	RequestID string
}

// Propose has the cluster agree on a write. It works on any node and returns when
// this node has applied it, so that the caller reads its own write here. A failure
// of the operation itself is in the Result; the error is ErrNoLeader,
// ErrUnknownOutcome or ErrHeldBack, with the reason, within 2 s or when ctx is done.
//
// While leadership changes, the same command is sent again: the machine knows it
// by its id, so it takes effect once, whatever became of the first
// (hashicorp/raft#561).
func (c *Cluster) Propose(ctx context.Context, w Write) (state.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeWithin)
	defer cancel()
	command := state.Command{ID: nameOr(w.RequestID, NewID()), At: time.Now().UnixMilli(), IfIndex: w.IfIndex, Op: w.Op}
	data, err := command.Encode()
	if err != nil {
		return state.Result{}, err
	}
	result, err := c.commit(ctx, data)
	if err != nil {
		return result, err
	}
	if err := c.fsm.applied.wait(ctx, result.Index); err != nil {
		return result, fmt.Errorf("%w: the change is committed, but this node has not caught up with it", ErrUnknownOutcome)
	}
	return result, nil
}

// commit sends a command to the leader until it is answered, refused, or there is
// no more time.
func (c *Cluster) commit(ctx context.Context, data []byte) (state.Result, error) {
	began, unknown := time.Now(), false
	for {
		if why := c.degraded(); why != "" {
			return state.Result{}, fmt.Errorf("%w: %s", outcome(unknown), why)
		}
		result, err := c.commitOnce(ctx, data)
		if err == nil {
			return result, nil
		}
		if errors.Is(err, ErrHeldBack) && !unknown {
			return state.Result{}, err
		}
		unknown = unknown || errors.Is(err, ErrUnknownOutcome)
		c.log.Debug("a write goes to the leader once more", "error", err)
		if !pause(ctx, retryAfter) {
			return state.Result{}, fmt.Errorf("%w: gave up after %s: %w", outcome(unknown), time.Since(began).Round(time.Millisecond), err)
		}
	}
}

// outcome is the error of a write that was given up.
func outcome(unknown bool) error {
	if unknown {
		return ErrUnknownOutcome
	}
	return ErrNoLeader
}

func (c *Cluster) commitOnce(ctx context.Context, data []byte) (result state.Result, err error) {
	id, addr := c.leader()
	switch id {
	case "":
		return result, errors.New("no leader is known")
	case c.id.nodeID():
		return c.apply(ctx, data)
	}
	if err := c.holdBack(data); err != nil { // a leader of an older version does not
		return result, err
	}
	err = c.calls.call(ctx, named(id, addr), proposePath, proposeCall{Command: data}, &result)
	return result, err
}

// untaken says whether Raft has refused something, so that it will never happen.
func untaken(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress)
}

// apply commits a command on the leader. Its error wraps ErrUnknownOutcome if the
// command may have been taken, else errNotLeader or ErrHeldBack.
func (c *Cluster) apply(ctx context.Context, data []byte) (state.Result, error) {
	if err := c.holdBack(data); err != nil {
		return state.Result{}, err
	}
	began := time.Now()
	future := c.raft().Apply(data, enqueueWithin)
	err := await(ctx, future)
	c.refusals.note(err)
	switch {
	case err == nil:
		if c.cfg.OnCommit != nil {
			c.cfg.OnCommit(time.Since(began))
		}
	case untaken(err):
		return state.Result{}, fmt.Errorf("%w: %w", errNotLeader, err)
	default:
		return state.Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	result, ok := future.Response().(state.Result)
	if !ok {
		return state.Result{}, fmt.Errorf("%w: %v", ErrUnknownOutcome, future.Response())
	}
	return result, nil
}

// proposed answers a node that has a command for the leader.
func (c *Cluster) proposed(ctx context.Context, call proposeCall) (state.Result, error) {
	if c.raft().State() != raft.Leader {
		return state.Result{}, errNotLeader
	}
	return c.apply(ctx, call.Command)
}
