package http1

import "testing"

// A connection that has not begun to do anything must not be taken for one that has
// done nothing for too long.
func TestNewWatchHasNoLimit(t *testing.T) {
	var w watch
	if p, _ := w.look(); p != untimed {
		t.Errorf("got phase %d, want %d", p, untimed)
	}
}

func TestWatchExpiresOnlyWhatWasSeen(t *testing.T) {
	var w watch
	w.set(heading, 100)
	p, until := w.look()
	if w.set(exchanged, 200); w.change(p, until, expired) {
		t.Error("a phase that is over expired")
	}
	w.touch(300)
	if p, until := w.look(); p != exchanged || until != 300 || !w.change(p, until, expired) {
		t.Errorf("got phase %d until %d, want %d until 300, which expires", p, until, exchanged)
	}
	w.touch(400)
	if !w.hasExpired() || w.set(idling, 500) != expired {
		t.Error("progress after the end undid the end")
	}
}
