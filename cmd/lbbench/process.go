//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a program may take to answer its first request, and to
// end when it is told to.
const patience = 20 * time.Second

// process is a program of the measurement, pinned to a core.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	gone chan struct{} // closed when it has ended
}

// startProcess starts a program on the core. Its output goes to a file in dir.
func startProcess(dir, name string, core int, env []string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), gone: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = pinned(context.Background(), core, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	go p.reap()
	return p, nil
}

// pinned returns a command that runs on one core, in a process group of its own
// (so that Ctrl-C reaches only us, and we end it in order), and that is told to
// end when we die. Told, not killed: nginx leaves its workers behind if killed.
func pinned(ctx context.Context, core int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(core)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// reap waits for the process to end. How it ended does not matter: nothing here
// ends by itself, and who needed it will notice.
func (p *process) reap() {
	_ = p.cmd.Wait()
	close(p.gone)
}

// pid is the id of the process; taskset has become the program itself.
func (p *process) pid() int { return p.cmd.Process.Pid }

// stop tells the process to end, waits for that, and ends its whole group if it
// does not obey.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.gone:
	case <-time.After(patience):
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.gone
}

// awaitReady polls until the probe succeeds; it fails when the process has ended
// or patience has.
func (p *process) awaitReady(ctx context.Context, probe func() error) error {
	deadline := time.After(patience)
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.gone:
			return fmt.Errorf("%s ended at its start: %s", p.name, p.lastWords())
		case <-deadline:
			return fmt.Errorf("%s is not ready after %s: %w; it said: %s", p.name, patience, err, p.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastWords returns the end of what the process has printed, on one line.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	if words == "" {
		return "nothing"
	}
	return words[max(0, len(words)-600):]
}

// output runs a program on the core to its end and returns what it printed.
func output(ctx context.Context, core int, args ...string) (string, error) {
	var text strings.Builder
	cmd := pinned(ctx, core, args...)
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("cannot run %s: %w: %s", args[0], err, text.String())
	}
	return text.String(), nil
}

// raiseFileLimit allows as many open files as we may have, and passes that on to
// the processes started later.
func raiseFileLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	const enough = 65536
	higher := syscall.Rlimit{Cur: enough, Max: max(enough, limit.Max)}
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &higher)
	if err == nil {
		return enough, nil
	}
	if !errors.Is(err, syscall.EPERM) {
		return 0, fmt.Errorf("cannot raise the limit of open files: %w", err)
	}
	limit.Cur = min(enough, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot raise the limit of open files to %d: %w", limit.Cur, err)
	}
	return limit.Cur, nil
}
