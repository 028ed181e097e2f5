package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"lbnode/proxy/lines"
)

// logRoom bounds the log lines that wait to be read, in bytes.
const logRoom = 256 << 10

// nodeLog is a node's log. Who logs never waits for who reads: what is not read in time
// is dropped, counted, and told of.
type nodeLog struct {
	*slog.Logger
	out *lines.Writer
}

// openLog opens the log of a node, which goes to stderr, and must be closed.
func openLog(stderr io.Writer, f *nodeFlags, dropped func(lines int)) (*nodeLog, error) {
	signal.Ignore(syscall.SIGPIPE) // else a line that nobody can read any more ends the process
	out, err := lines.Open(lines.Config{
		Open:    func() (io.Writer, error) { return apart(stderr) },
		Room:    logRoom,
		Dropped: dropped,
		Notice: func(lines int) []byte {
			var line bytes.Buffer
			newLog(&line, f).Warn(fmt.Sprintf("%d log lines were dropped because nothing read them, or not fast enough", lines))
			return line.Bytes()
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	log.SetOutput(out) // of libraries that take no logger
	return &nodeLog{newLog(out, f), out}, nil
}

// close writes what waits, if it is read in time.
func (l *nodeLog) close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastLinesWithin)
	defer cancel()
	_ = l.out.Close(ctx) // who does not read the log would not read of this either
}

func newLog(out io.Writer, f *nodeFlags) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.logLevel}
	if f.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options)).With("node", f.node)
	}
	return slog.New(slog.NewTextHandler(out, options)).With("node", f.node)
}

// say prints text, but does not wait for who does not read it.
func say(out io.Writer, text string) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		fmt.Fprint(out, text)
	}()
	select {
	case <-said:
	case <-time.After(lastLinesWithin):
	}
}
