package http1

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The server's clock counts the time in which the process runs, so that a stop ends
// nothing that was under way, nor what begins before the sweeper looks again.
func TestClockLeavesOutStops(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name  string
		looks []time.Duration
		want  []int64 // ms
	}{
		{"in time", []time.Duration{100 * ms, 200 * ms, 300 * ms}, []int64{100, 200, 300}},
		{"a busy machine", []time.Duration{130 * ms, 450 * ms, 500 * ms}, []int64{130, 450, 500}},
		{"parts of a millisecond", []time.Duration{100*ms + ms/2, 201 * ms}, []int64{100, 201}},
		{"stopped for 10 s", []time.Duration{100 * ms, 10100 * ms, 10200 * ms}, []int64{100, 600, 700}},
		{"stopped for hours, twice", []time.Duration{time.Hour, 2 * time.Hour}, []int64{500, 1000}},
	} {
		s := &Server{}
		for i, at := range test.looks {
			s.advance(at)
			if got := s.now.Load(); got != test.want[i] {
				t.Errorf("%s: got a clock of %d ms after %s, want %d", test.name, got, at, test.want[i])
			}
		}
	}
}

func TestServerKnowsThatItStoodStill(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		name  string
		looks []time.Duration
		since time.Duration
		want  bool // after 10 s
	}{
		{"never", []time.Duration{9 * s, 9*s + s/2, 10 * s}, 9*s + s/4, false},
		{"since then", []time.Duration{s, 7 * s, 7*s + s/2}, 0, true},
		{"before", []time.Duration{7 * s, 7*s + s/2, 10 * s}, 10*s - 1, true}, // the last look was late, too
		{"it is just going on", []time.Duration{s / 2, s}, 9 * s, true},
		{"it began when that was over", []time.Duration{9 * s, 9*s + s/2, 10*s - s/4}, 9*s + 1, false},
		{"it began just before", []time.Duration{9 * s, 9*s + s/2, 10*s - s/4}, 9*s - 1, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := &Server{began: time.Now()}
			for _, at := range test.looks {
				server.advance(at)
			}
			<-time.After(10 * s)
			if got := server.stoodStill(server.began.Add(test.since)); got != test.want {
				t.Errorf("%s: got %t, want %t", test.name, got, test.want)
			}
		})
	}
}

// What is waited for is bounded, and waited for once more if the process was stopped.
func TestWaitingIsInTime(t *testing.T) {
	for _, test := range []struct {
		name    string
		connect time.Duration
		takes   []time.Duration // until it ends, of each try
		fails   int             // so many tries
		want    time.Duration
		err     bool
	}{
		{"in time", time.Second, []time.Duration{time.Second}, 0, time.Second, false},
		{"it fails", time.Second, []time.Duration{time.Second}, 1, time.Second, true},
		{"it fails late", time.Second, []time.Duration{time.Second + maxStep}, 1, time.Second + maxStep, true},
		{"the process was stopped", time.Second, []time.Duration{10 * time.Second, time.Second}, 1, 11 * time.Second, false},
		{"it was stopped and succeeds", time.Second, []time.Duration{10 * time.Second}, 0, 10 * time.Second, false},
		{"it was stopped and fails again", time.Second, []time.Duration{10 * time.Second, 10 * time.Second}, 2, 20 * time.Second, true},
		{"no bound", 0, []time.Duration{time.Hour}, 1, time.Hour, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, began, tries := NewBackend(BackendConfig{Connect: test.connect}), time.Now(), 0
			err := b.inTime(t.Context(), func(ctx context.Context) error {
				<-time.After(test.takes[tries])
				if tries++; tries <= test.fails {
					return ErrFull
				}
				return nil
			})
			if got := time.Since(began); (err != nil) != test.err || got != test.want || tries != len(test.takes) {
				t.Errorf("%s: got %v after %s and %d tries, want a failure %t after %s", test.name, err, got, tries, test.err, test.want)
			}
		})
	}
}

// A connection that could not be made in time because the process was stopped is tried
// once more, before anybody hears of it.
func TestLateConnectingIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name  string
		late  int32 // how many times it is late
		slow  int32 // or only runs into the timeout
		tries int32
		fails bool
	}{
		{"in time", 0, 0, 1, false},
		{"stopped", 1, 0, 2, false},
		{"stopped twice", 2, 0, 2, true},
		{"a backend that does not answer", 0, 1, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			listener := listen(t)
			defer listener.Close()
			var found []error
			b := NewBackend(BackendConfig{
				Addr:    listener.Addr().String(),
				Connect: 100 * time.Millisecond,
				Found: func(err error) {
					if err != ErrSlow {
						found = append(found, err)
					}
				},
			})
			var tries atomic.Int32
			b.dialer.Control = func(string, string, syscall.RawConn) error {
				switch n := tries.Add(1); {
				case n <= test.late:
					<-time.After(b.config.Connect + maxStep + 50*time.Millisecond)
				case n <= test.slow:
					<-time.After(b.config.Connect + 50*time.Millisecond)
				}
				return nil
			}
			u, err := b.get(t.Context(), 0, nil)
			if (err != nil) != test.fails || tries.Load() != test.tries {
				t.Errorf("got %v after %d tries, want a failure %t after %d", err, tries.Load(), test.fails, test.tries)
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !isTimeout(errors.Unwrap(err)) {
				t.Errorf("got %v, want a timeout", err)
			}
			if len(found) != 1 || (found[0] != nil) != test.fails {
				t.Errorf("told %v, want it once", found)
			}
			if u != nil {
				u.close()
			}
		})
	}
}
