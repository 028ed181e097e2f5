package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The libraries log what they try; this product logs what it decides. So their
// lines go one level down, and a warning that repeats is said once in a while.

// repeatAfter is how long an equal library warning is kept to itself.
const repeatAfter = 30 * time.Second

// libraryLog writes the lines of raft and memberlist to a slog.Logger.
type libraryLog struct {
	out *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time
}

func newLibraryLog(out *slog.Logger) *libraryLog {
	return &libraryLog{out: out, said: map[string]time.Time{}}
}

// hclog returns the logger for raft and autopilot.
func (l *libraryLog) hclog(name string) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: name, Output: io.Discard, Level: hclog.Debug})
	logger.RegisterSink(l)
	return logger
}

// std returns the logger for memberlist.
func (l *libraryLog) std() *log.Logger { return log.New(l, "", 0) }

// Accept implements hclog.SinkAdapter.
func (l *libraryLog) Accept(name string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && !aboutPeer(args) {
		to = slog.LevelWarn
	}
	for i, arg := range args {
		if format, ok := arg.(hclog.Format); ok && len(format) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(format[0]), format[1:]...)
		}
	}
	l.say(to, name+": "+msg, args...)
}

// aboutPeer says whether raft complains of another node: that it is gone is
// gossip's to say, once.
func aboutPeer(args []any) bool {
	for i := 0; i < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "target" || args[i] == "backoff time" {
			return true
		}
		if i+1 == len(args) {
			break
		}
		err, _ := args[i+1].(error)
		if err == raft.ErrTransportShutdown || err == context.Canceled || errors.Is(err, net.ErrClosed) {
			return true // the other side of a node that stops, or this one, or a secret taken out
		}
	}
	return false
}

// Write implements io.Writer for memberlist. All of it is for debugging: what it
// complains of is what gossip is made to get over, and nodes that come and go are
// logged by this package.
func (l *libraryLog) Write(line []byte) (int, error) {
	l.say(slog.LevelDebug, string(bytes.TrimSpace(line)))
	return len(line), nil
}

func (l *libraryLog) say(level slog.Level, msg string, args ...any) {
	if level >= slog.LevelWarn && l.repeated(msg) {
		level = slog.LevelDebug
	}
	l.out.Log(context.Background(), level, msg, args...)
}

// repeated says whether msg was said a short while ago.
func (l *libraryLog) repeated(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for text, at := range l.said {
		if now.Sub(at) > repeatAfter {
			delete(l.said, text)
		}
	}
	_, found := l.said[msg]
	if !found {
		l.said[msg] = now
	}
	return found
}
