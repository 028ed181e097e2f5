package cluster

import (
	"context"
	"sync"
)

// watermark is an index that only rises and that can be waited for.
type watermark struct {
	mu    sync.Mutex
	index uint64
	risen chan struct{} // closed and replaced at each rise
}

func newWatermark() *watermark { return &watermark{risen: make(chan struct{})} }

func (w *watermark) reach(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if index <= w.index {
		return
	}
	w.index = index
	close(w.risen)
	w.risen = make(chan struct{})
}

// wait returns when the watermark has reached index, or ctx is done.
func (w *watermark) wait(ctx context.Context, index uint64) error {
	for {
		w.mu.Lock()
		reached, risen := w.index >= index, w.risen
		w.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-risen:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
