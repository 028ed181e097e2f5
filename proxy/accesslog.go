package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"lbnode/proxy/lines"
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
	config AccessLogConfig
	node   []byte    // as JSON
	made   sync.Pool // of *line
	out    *lines.Writer
	told   time.Time // when the other log last heard that writing fails; of out's goroutine only
}

// OpenAccessLog opens an access log, which must be closed.
func OpenAccessLog(config AccessLogConfig) (*AccessLog, error) {
	l := &AccessLog{
		config: config,
		node:   appendQuoted(nil, []byte(config.Node)),
		made:   sync.Pool{New: func() any { return &line{text: make([]byte, 0, usualLine)} }},
	}
	var err error
	l.out, err = lines.Open(lines.Config{
		Open:    l.open,
		Room:    accessLogRoom,
		Every:   accessLogEvery,
		Dropped: config.Dropped,
		Failed:  l.failed,
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *AccessLog) open() (io.Writer, error) {
	if l.config.File == "-" {
		return struct{ io.Writer }{l.config.Stdout}, nil // which is not for the log to close
	}
	file, err := os.OpenFile(l.config.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot open the access log: %w; -access-log needs a file that this user may write", err)
	}
	return file, nil
}

// Reopen opens the file anew, which may have been moved away, after writing to the old
// one what came before. If that fails the old one is kept.
func (l *AccessLog) Reopen() { l.out.Reopen() }

// Close writes what waits and closes the file, unless ctx is done before.
func (l *AccessLog) Close(ctx context.Context) error {
	if err := l.out.Close(ctx); err != nil {
		return fmt.Errorf("cannot write the last lines of the access log to %s: nothing takes them: %w", l.config.File, err)
	}
	return nil
}

// add adds a line.
func (l *AccessLog) add(e *entry) {
	made := l.made.Get().(*line)
	made.write(e, l.node)
	l.out.Write(made.text)
	l.made.Put(made)
}

// failed tells the other log of lines that could not be written, or that the file could
// not be opened anew.
func (l *AccessLog) failed(lines int, err error) {
	if lines == 0 {
		l.config.Log.Error("the access log goes on in the old file", "error", err)
		return
	}
	if now := time.Now(); now.Sub(l.told) >= accessLogComplaint {
		l.told = now
		l.config.Log.Error("cannot write the access log; lines are dropped", "file", l.config.File, "lines", lines, "error", err)
	}
}
