// Package lines writes lines to where writing may block, or fail, for as long as it
// likes. Who writes a line never waits: it is queued, in bounded room, for one goroutine
// that hands it on. It knows nothing of what the lines say.
//
// Invariant: lines come out whole and in their order, and each that was written either
// came out or was counted as dropped.
package lines

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

// Config says where lines go. Open and Room must be there.
type Config struct {
	// Open opens what the lines are written to, at once and for each Reopen. If it is an
	// io.Closer it is closed when it is no longer needed.
	Open func() (io.Writer, error)
	// Room bounds the lines that wait, in bytes.
	Room int
	// Every is how long a line waits for others to be written together with it; 0: none
	// does.
	Every time.Duration
	// Dropped is told of lines that are given up, for want of room or because writing
	// failed. It is called by who writes a line, too, and must not write one; nil tells
	// nobody.
	Dropped func(lines int)
	// Failed is told why lines, and how many, could not be written, or why Reopen goes on
	// with what is open, when there are none; nil tells nobody.
	Failed func(lines int, err error)
	// Notice makes a line, or none, that stands where so many are missing once there is
	// somebody to read it; nil makes none.
	Notice func(dropped int) []byte
}

// Writer is an io.Writer of lines. All methods may be called concurrently.
type Writer struct {
	config  Config
	hurry   chan struct{}
	reopens chan struct{}
	closing chan struct{}
	once    sync.Once
	done    chan struct{} // closed at the end of loop

	mu      sync.Mutex
	waiting []byte // lines
	missing int    // lines that were dropped since Notice

	// Of loop only.
	out     io.Writer
	spare   []byte // takes the place of waiting
	partial bool   // the last line written is not whole
}

// Open opens what lines are written to. The writer must be closed.
func Open(config Config) (*Writer, error) {
	w := &Writer{
		config:  config,
		hurry:   make(chan struct{}, 1),
		reopens: make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		waiting: make([]byte, 0, config.Room),
		spare:   make([]byte, 0, config.Room),
	}
	var err error
	if w.out, err = config.Open(); err != nil {
		return nil, err
	}
	go w.loop()
	return w, nil
}

// Write queues one or more whole lines. It always succeeds: what there is no room for
// is dropped.
func (w *Writer) Write(lines []byte) (int, error) {
	if !w.put(lines) {
		w.drop(bytes.Count(lines, newline))
	}
	return len(lines), nil
}

var newline = []byte("\n")

// put says whether there was room for the lines.
func (w *Writer) put(lines []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting)+len(lines) > w.config.Room {
		return false
	}
	w.waiting = append(w.waiting, lines...)
	if w.config.Every == 0 || len(w.waiting) > w.config.Room/2 {
		notify(w.hurry)
	}
	return true
}

func (w *Writer) drop(lines int) {
	w.mu.Lock()
	w.missing += lines
	w.mu.Unlock()
	if w.config.Dropped != nil {
		w.config.Dropped(lines)
	}
}

// Reopen opens anew what is written to, after writing to the old what came before. If
// that fails the old is kept.
func (w *Writer) Reopen() { notify(w.reopens) }

// Close writes what waits and closes what it is written to. Its error is that ctx was
// done before.
func (w *Writer) Close(ctx context.Context) error {
	w.once.Do(func() { close(w.closing) })
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// loop writes what waits.
func (w *Writer) loop() {
	defer close(w.done)
	var tick <-chan time.Time
	if w.config.Every > 0 {
		ticker := time.NewTicker(w.config.Every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-tick:
			w.flush()
		case <-w.hurry:
			w.flush()
		case <-w.reopens:
			w.flush()
			w.reopen()
		case <-w.closing:
			w.flush()
			w.close()
			return
		}
	}
}

func (w *Writer) reopen() {
	out, err := w.config.Open()
	if err != nil {
		w.fail(0, err)
		return
	}
	w.close()
	w.out, w.partial = out, false
}

func (w *Writer) close() {
	if file, ok := w.out.(io.Closer); ok {
		file.Close()
	}
}

// flush writes what waits, and then that lines are missing if some were dropped
// meanwhile: they came after those that wait and before all that come now.
func (w *Writer) flush() {
	w.mu.Lock()
	w.waiting, w.spare = w.spare[:0], w.waiting
	missing := w.missing
	w.mu.Unlock()
	if n, err := w.write(w.spare); err != nil {
		lost := bytes.Count(w.spare[n:], newline)
		w.drop(lost)
		w.fail(lost, err)
		return
	}
	if missing == 0 || w.config.Notice == nil {
		return
	}
	if _, err := w.write(w.config.Notice(missing)); err == nil {
		w.mu.Lock()
		w.missing -= missing
		w.mu.Unlock()
	}
}

// write returns how much of the lines was written, all if there is no error.
func (w *Writer) write(lines []byte) (int, error) {
	if len(lines) == 0 {
		return 0, nil
	}
	if w.partial { // so that the next line stands alone
		if _, err := w.out.Write(newline); err != nil {
			return 0, err
		}
		w.partial = false
	}
	n, err := w.out.Write(lines)
	w.partial = n > 0 && lines[n-1] != '\n'
	return n, err
}

func (w *Writer) fail(lines int, err error) {
	if w.config.Failed != nil {
		w.config.Failed(lines, err)
	}
}
