package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// accessLogRoom bounds what waits to be written, in bytes.
	accessLogRoom = 1 << 20
	// accessLogEvery is how long a line waits at most while writing keeps up.
	accessLogEvery = 100 * time.Millisecond
	// accessLogComplaint is how often the other log hears that writing fails.
	accessLogComplaint = 10 * time.Second
)

// AccessLogConfig says where an access log goes. All fields but Stdout must be there.
type AccessLogConfig struct {
	File    string          // that lines are appended to; "-" is Stdout
	Stdout  io.Writer       // may be nil if File is another
	Node    string          // this node's name, for each line
	Dropped func(lines int) // is told of lines that were not written
	Log     *slog.Logger
}

// AccessLog writes one line of JSON about each request. A request only copies its line
// to what one goroutine writes from time to time; when that falls behind, lines are
// dropped and counted, and no request waits. All methods may be called concurrently.
type AccessLog struct {
	config  AccessLogConfig
	node    []byte    // as JSON
	lines   sync.Pool // of *line
	hurry   chan struct{}
	reopens chan struct{}
	closing chan struct{}
	once    sync.Once
	done    chan struct{} // closed at the end of loop

	mu      sync.Mutex
	waiting []byte // lines

	// Of loop only.
	out     io.Writer
	spare   []byte // takes the place of waiting
	partial bool   // the last line written is not whole
	told    time.Time
}

// OpenAccessLog opens an access log, which must be closed.
func OpenAccessLog(config AccessLogConfig) (*AccessLog, error) {
	l := &AccessLog{
		config:  config,
		node:    appendQuoted(nil, []byte(config.Node)),
		lines:   sync.Pool{New: func() any { return &line{text: make([]byte, 0, usualLine)} }},
		hurry:   make(chan struct{}, 1),
		reopens: make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		waiting: make([]byte, 0, accessLogRoom),
		spare:   make([]byte, 0, accessLogRoom),
	}
	var err error
	if l.out, err = l.open(); err != nil {
		return nil, err
	}
	go l.loop()
	return l, nil
}

func (l *AccessLog) open() (io.Writer, error) {
	if l.config.File == "-" {
		return l.config.Stdout, nil
	}
	file, err := os.OpenFile(l.config.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot open the access log: %w; -access-log needs a file that this user may write", err)
	}
	return file, nil
}

// Reopen opens the file anew, which may have been moved away, after writing to the old
// one what came before. If that fails the old one is kept.
func (l *AccessLog) Reopen() { notify(l.reopens) }

// Close writes what waits and closes the file, unless ctx is done before.
func (l *AccessLog) Close(ctx context.Context) error {
	l.once.Do(func() { close(l.closing) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot write the last lines of the access log to %s: nothing takes them: %w", l.config.File, ctx.Err())
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add adds a line.
func (l *AccessLog) add(e *entry) {
	made := l.lines.Get().(*line)
	made.write(e, l.node)
	if !l.put(made.text) {
		l.config.Dropped(1)
	}
	l.lines.Put(made)
}

// put says whether there was room for the line.
func (l *AccessLog) put(line []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting)+len(line) > cap(l.waiting) {
		return false
	}
	l.waiting = append(l.waiting, line...)
	if len(l.waiting) > cap(l.waiting)/2 {
		notify(l.hurry)
	}
	return true
}

// loop writes what waits.
func (l *AccessLog) loop() {
	defer close(l.done)
	ticker := time.NewTicker(accessLogEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.flush()
		case <-l.hurry:
			l.flush()
		case <-l.reopens:
			l.flush()
			l.reopen()
		case <-l.closing:
			l.flush()
			l.closeFile()
			return
		}
	}
}

func (l *AccessLog) reopen() {
	out, err := l.open()
	if err != nil {
		l.config.Log.Error("the access log goes on in the old file", "error", err)
		return
	}
	l.closeFile()
	l.out, l.partial = out, false
}

// closeFile leaves the standard output open.
func (l *AccessLog) closeFile() {
	if file, ok := l.out.(*os.File); ok && l.config.File != "-" {
		file.Close()
	}
}

func (l *AccessLog) flush() {
	l.mu.Lock()
	l.waiting, l.spare = l.spare[:0], l.waiting
	l.mu.Unlock()
	if len(l.spare) == 0 {
		return
	}
	if l.partial { // so that the next line stands alone
		if _, err := l.out.Write([]byte("\n")); err != nil {
			l.lose(l.spare, err)
			return
		}
		l.partial = false
	}
	if n, err := l.out.Write(l.spare); err != nil {
		l.partial = n > 0 && l.spare[n-1] != '\n'
		l.lose(l.spare[n:], err)
	}
}

// lose counts lines that could not be written.
func (l *AccessLog) lose(lines []byte, err error) {
	n := bytes.Count(lines, []byte("\n"))
	l.config.Dropped(n)
	if now := time.Now(); now.Sub(l.told) >= accessLogComplaint {
		l.told = now
		l.config.Log.Error("cannot write the access log; lines are dropped", "file", l.config.File, "lines", n, "error", err)
	}
}
