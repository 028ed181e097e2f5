package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// retryAfter is the pause between two tries to reach a leader.
const retryAfter = 100 * time.Millisecond

// Propose has the cluster agree on an operation. It works on any node and
// returns when this node has applied it, so that the caller reads its own write
// here. Unless ifIndex is 0, the operation fails with state.Stale if the view
// has another index by then. A failure of the operation itself is in the Result;
// the error is ErrNoLeader, with the reason, if the cluster could not take it
// before ctx was done or 10 s had passed.
//
// While leadership changes, the same command is sent again: the machine knows it
// by its id, so it takes effect once, whatever became of the first
// (hashicorp/raft#561).
func (c *Cluster) Propose(ctx context.Context, op state.Op, ifIndex uint64) (state.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeWithin)
	defer cancel()
	command := state.Command{ID: NewID(), At: time.Now().UnixMilli(), IfIndex: ifIndex, Op: op}
	data, err := command.Encode()
	if err != nil {
		return state.Result{}, err
	}
	result, err := c.commit(ctx, data)
	if err != nil {
		return result, err
	}
	if err := c.fsm.applied.wait(ctx, result.Index); err != nil {
		return result, fmt.Errorf("%w: the change is committed, but this node has not caught up with it", ErrNoLeader)
	}
	return result, nil
}

func (c *Cluster) commit(ctx context.Context, data []byte) (state.Result, error) {
	began := time.Now()
	for {
		if why := c.degraded(); why != "" {
			return state.Result{}, fmt.Errorf("%w: %s", ErrNoLeader, why)
		}
		result, err := c.commitOnce(ctx, data)
		if err == nil {
			return result, nil
		}
		c.log.Debug("a write goes to the leader once more", "error", err)
		if !pause(ctx, retryAfter) {
			return state.Result{}, fmt.Errorf("%w: gave up after %s: %w", ErrNoLeader, time.Since(began).Round(time.Millisecond), err)
		}
	}
}

func (c *Cluster) commitOnce(ctx context.Context, data []byte) (result state.Result, err error) {
	id, addr := c.leader()
	switch id {
	case "":
		return result, errors.New("no leader is known")
	case c.id.nodeID():
		return c.apply(ctx, data)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	err = c.calls.call(ctx, addr, proposePath, proposeCall{Command: data}, &result)
	return result, err
}

// apply commits a command on the leader.
func (c *Cluster) apply(ctx context.Context, data []byte) (state.Result, error) {
	future := c.raft.Apply(data, callWithin)
	if err := await(ctx, future); err != nil {
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) {
			err = fmt.Errorf("%w: %w", errNotLeader, err)
		}
		return state.Result{}, err
	}
	result, ok := future.Response().(state.Result)
	if !ok {
		return state.Result{}, fmt.Errorf("the machine answered %T", future.Response())
	}
	return result, nil
}

// proposed answers a node that has a command for the leader.
func (c *Cluster) proposed(ctx context.Context, call proposeCall) (state.Result, error) {
	if c.raft.State() != raft.Leader {
		return state.Result{}, errNotLeader
	}
	if !json.Valid(call.Command) {
		return state.Result{}, errors.New("the command is not JSON")
	}
	return c.apply(ctx, call.Command)
}
