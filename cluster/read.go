package cluster

import (
	"context"
	"errors"
	"fmt"

	"lbnode/state"
)

// Barrier returns when this node's view holds every write that anybody was
// answered before the call. Its error is ErrNoLeader or ErrHeldBack, with the reason,
// within 2 s or when ctx is done.
func (c *Cluster) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, proposeWithin)
	defer cancel()
	for {
		if why := c.degraded(); why != "" {
			return fmt.Errorf("%w: %s", ErrNoLeader, why)
		}
		reply, err := c.barrierOnce(ctx)
		if err == nil {
			err = c.fsm.applied.wait(ctx, reply.Index)
		}
		if err == nil || errors.Is(err, ErrHeldBack) {
			return err
		}
		if !pause(ctx, retryAfter) {
			return fmt.Errorf("%w: %w", ErrNoLeader, err)
		}
	}
}

func (c *Cluster) barrierOnce(ctx context.Context) (reply barrierReply, err error) {
	id, addr := c.leader()
	switch id {
	case "":
		return reply, errors.New("no leader is known")
	case c.id.nodeID():
		return c.barrier(ctx)
	}
	err = c.calls.call(ctx, named(id, addr), barrierPath, none{}, &reply)
	return reply, err
}

// barrier answers a node that wants to read what is agreed now. The barrier is an
// entry of the log: to ask the followers whether they still follow is not enough,
// because an answer from before a pause of this process may count for one from
// after it.
func (c *Cluster) barrier(ctx context.Context) (barrierReply, error) {
	err := await(ctx, c.raft().Barrier(enqueueWithin))
	c.refusals.note(err)
	if err != nil {
		return barrierReply{}, fmt.Errorf("%w: %w", errNotLeader, err)
	}
	if err := c.fsm.failure(); err != nil {
		return barrierReply{}, fmt.Errorf("%w: %w", errNotLeader, err)
	}
	return barrierReply{Index: c.fsm.view().Index}, nil
}

// NextView returns the first view newer than index, or the current one once ctx is
// done.
func (c *Cluster) NextView(ctx context.Context, index uint64) *state.View {
	return c.views.newer(ctx, index)
}
