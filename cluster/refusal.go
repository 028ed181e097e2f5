package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A leadership transfer that is interrupted can leave Raft refusing all writes for
// as long as the process lives, through any number of terms, while it may still be
// elected (hashicorp/raft#696). Nobody else notices: it sends heartbeats. So a
// leader that has refused for too long restarts its Raft.

// refusals notes since when the leader's Raft has taken nothing.
type refusals struct {
	mu    sync.Mutex
	since time.Time // zero: it takes writes, or nobody has tried
}

// note takes what became of one attempt.
func (r *refusals) note(err error) {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return // the caller has gone; Raft has not said anything
	}
	refused := errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, raft.ErrEnqueueTimeout)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !refused:
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = time.Now()
	}
}

// lasting is for how long all attempts were refused, 0 if the last was not.
func (r *refusals) lasting() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		return 0
	}
	return time.Since(r.since)
}

// refusalLoop tries again while writes are refused, and restarts Raft when that
// does not end.
func (c *Cluster) refusalLoop(ctx context.Context) {
	for pause(ctx, time.Second) {
		if c.refusals.lasting() == 0 {
			continue
		}
		if _, err := c.barrier(ctx); err == nil || c.refusals.lasting() < refusesFor {
			continue
		}
		if problems := c.disk.problems(); len(problems) > 0 {
			continue // a restart would not help the disk
		}
		c.restartRaft()
		return
	}
}

func (c *Cluster) restartRaft() {
	c.log.Error("raft leads but has refused all writes for too long, as after an interrupted leadership transfer; restarting it", "for", c.refusals.lasting().Round(time.Second))
	err := c.stopRaft()
	if err == nil {
		err = c.startRaft()
	}
	if err != nil {
		c.fail(err)
	}
	c.refusals.note(nil)
}
