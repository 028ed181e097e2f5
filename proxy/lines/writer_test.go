package lines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// reader is what lines are written to: it takes none, some or all.
type reader struct {
	stopped chan struct{} // takes nothing until it is closed; nil: never stopped

	mu   sync.Mutex
	room int // bytes that it takes before it fails
	text bytes.Buffer
}

func (r *reader) Write(p []byte) (int, error) {
	if r.stopped != nil {
		<-r.stopped
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(p), r.room)
	r.room -= n
	r.text.Write(p[:n])
	if n < len(p) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

func (r *reader) resume(room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room = room
}

func (r *reader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// open opens a writer of lines with room for 100 bytes.
func open(t *testing.T, to io.Writer, change func(*Config)) (*Writer, *atomic.Int64) {
	t.Helper()
	dropped := new(atomic.Int64)
	config := Config{
		Open:    func() (io.Writer, error) { return to, nil },
		Room:    100,
		Dropped: func(lines int) { dropped.Add(int64(lines)) },
		Notice:  func(lines int) []byte { return fmt.Appendf(nil, "%d missing\n", lines) },
	}
	if change != nil {
		change(&config)
	}
	w, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	return w, dropped
}

// Nobody waits while nothing is read; what there was room for comes out in order once
// something is, and says where lines are missing.
func TestLinesThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{stopped: make(chan struct{}), room: 1 << 20}
		w, dropped := open(t, r, nil)
		for i := range 50 { // 10 bytes each
			fmt.Fprintf(w, "line %4d\n", i)
			synctest.Wait() // the first is being written, so that the next ones wait
		}
		if dropped.Load() != 39 {
			t.Errorf("got %d lines dropped, want 39 of 50: one is being written, 10 wait", dropped.Load())
		}
		close(r.stopped)
		synctest.Wait()
		fmt.Fprintf(w, "line %4d\n", 50)
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for i := range 11 {
			fmt.Fprintf(&want, "line %4d\n", i)
		}
		want.WriteString("39 missing\nline   50\n")
		if r.String() != want.String() {
			t.Errorf("got\n%s\nwant\n%s", r, want.String())
		}
	})
}

// Whose reader is gone loses lines, each of them counted; another reader gets whole ones.
func TestLinesThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{room: 4}
		var failures []error
		w, dropped := open(t, r, func(c *Config) {
			c.Failed = func(_ int, err error) { failures = append(failures, err) }
		})
		for range 3 {
			io.WriteString(w, "lost line\n")
			synctest.Wait()
		}
		if dropped.Load() != 3 || len(failures) != 3 || !errors.Is(failures[0], io.ErrClosedPipe) {
			t.Errorf("got %d lines dropped for %v, want 3", dropped.Load(), failures)
		}
		r.resume(1 << 20)
		io.WriteString(w, "line\n")
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := "lost\nline\n3 missing\n"; r.String() != want || dropped.Load() != 3 {
			t.Errorf("got %q and %d dropped, want %q and 3", r, dropped.Load(), want)
		}
	})
}

// Close waits no longer than it is told to.
func TestLinesEndUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{stopped: make(chan struct{}), room: 1 << 20}
		w, _ := open(t, r, nil)
		io.WriteString(w, "line\n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that time is up", err)
		}
		close(r.stopped)
		if err := w.Close(t.Context()); err != nil || r.String() != "line\n" {
			t.Errorf("got %v and %q, want the line after all", err, r)
		}
	})
}

// With Every, lines wait for others, but not until there is no room.
func TestLinesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{room: 1 << 20}
		w, _ := open(t, r, func(c *Config) { c.Every = time.Second })
		defer w.Close(t.Context())
		io.WriteString(w, "one\n")
		synctest.Wait()
		if r.String() != "" {
			t.Errorf("got %q at once", r)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if r.String() != "one\n" {
			t.Errorf("got %q after the time, want the line", r)
		}
		long := strings.Repeat("x", 60) + "\n"
		io.WriteString(w, long)
		synctest.Wait()
		if r.String() != "one\n"+long {
			t.Errorf("got %q, want what fills half of the room at once", r)
		}
	})
}

// Many write at once; each line comes out whole.
func TestLinesOfMany(t *testing.T) {
	r := &reader{room: 1 << 30}
	w, dropped := open(t, r, func(c *Config) { c.Room = 1 << 20 })
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for range 1000 {
				fmt.Fprintf(w, "%s\n", strings.Repeat(string(rune('a'+i)), 20))
			}
		})
	}
	writers.Wait()
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(r.String()) {
		if line != strings.Repeat(line[:1], 20)+"\n" {
			t.Fatalf("got %q, which is not what one wrote", line)
		}
		count++
	}
	if count != 8000 || dropped.Load() != 0 {
		t.Errorf("got %d lines and %d dropped, want 8000 and none", count, dropped.Load())
	}
}
