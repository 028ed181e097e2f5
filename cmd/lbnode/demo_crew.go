package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// crew runs the processes of a demo. Each has a process group of its own, so that
// Ctrl-C reaches only the demo, which stops them in order; and, where the system
// can do it, none outlives the demo, however that ends.
type crew struct {
	members []demoMember
	command []string // the program, and arguments that come before a member's
	say     func(format string, args ...any)
	// grace is how long processes get to stop before they are killed.
	grace time.Duration
	// lost gets the name of the first process that stops without being told to.
	lost chan string

	// forks are run one after the other by forkAll, on a thread that lives as long
	// as the crew: to the kernel a thread, not a process, is a child's parent, and
	// the child dies with it.
	forks   chan func()
	waiters sync.WaitGroup

	mu      sync.Mutex // guards what follows
	running map[string]*child
	ending  bool // nothing is started any more
}

// child is one run of a member.
type child struct {
	name    string
	cmd     *exec.Cmd
	words   *lastWords
	done    chan struct{} // closed when it has ended
	stopped bool          // it was told to stop; the crew's mutex guards it
}

func newCrew(members []demoMember, command []string, say func(string, ...any)) *crew {
	c := &crew{
		members: members,
		command: command,
		say:     say,
		grace:   5 * time.Second,
		lost:    make(chan string, 1),
		forks:   make(chan func()),
		running: make(map[string]*child),
	}
	c.waiters.Go(c.forkAll)
	return c
}

func (c *crew) forkAll() {
	runtime.LockOSThread() // for good: see forks
	for fork := range c.forks {
		fork()
	}
}

// close waits for the crew's goroutines. Nothing may be started afterwards.
func (c *crew) close() {
	close(c.forks)
	c.waiters.Wait()
}

func (c *crew) startAll(names []string) error {
	for _, name := range names {
		if err := c.start(name); err != nil {
			return err
		}
	}
	return nil
}

// start runs a member that is not running.
func (c *crew) start(name string) error {
	m, err := c.member(name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return fmt.Errorf("cannot start %s: the demo is stopping", name)
	}
	if c.running[name] != nil {
		return fmt.Errorf("%s is running already", name)
	}
	p := &child{name: name, words: &lastWords{}, done: make(chan struct{})}
	p.cmd = c.build(m, p.words)
	if err := c.fork(p.cmd); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	c.running[name] = p
	c.waiters.Go(func() { c.await(p) })
	return nil
}

func (c *crew) member(name string) (demoMember, error) {
	var names []string
	for _, m := range c.members {
		if m.name == name {
			return m, nil
		}
		names = append(names, m.name)
	}
	return demoMember{}, fmt.Errorf("the demo has no %q%s; it has %s", name, suggest(name, names), strings.Join(names, ", "))
}

func (c *crew) build(m demoMember, output *lastWords) *exec.Cmd {
	args := append(c.command[1:len(c.command):len(c.command)], m.args...)
	cmd := exec.Command(c.command[0], args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = withoutSettings(os.Environ())
	cmd.SysProcAttr = childAttributes()
	return cmd
}

// withoutSettings drops the environment's twins of a node's flags: they are meant
// for the user's own nodes, not for the demo's.
func withoutSettings(env []string) []string {
	twins := make(map[string]bool)
	newFlagSet(&nodeFlags{}).VisitAll(func(f *flag.Flag) {
		twins["LBNODE_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = true
	})
	return slices.DeleteFunc(env, func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return twins[name]
	})
}

func (c *crew) fork(cmd *exec.Cmd) error {
	result := make(chan error)
	c.forks <- func() { result <- cmd.Start() }
	return <-result
}

// await waits for a process to end, and tells if nobody told it to.
func (c *crew) await(p *child) {
	err := p.cmd.Wait()
	c.mu.Lock()
	delete(c.running, p.name)
	expected := p.stopped
	c.mu.Unlock()
	if !expected {
		c.say("%s has stopped by itself (%s)%s", p.name, endOf(err), p.words)
		select {
		case c.lost <- p.name:
		default:
		}
	}
	close(p.done)
}

func endOf(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// kill ends a process as a crash would and waits until it is gone.
func (c *crew) kill(name string) error {
	if _, err := c.member(name); err != nil {
		return err
	}
	p := c.tell(name, os.Kill)
	if p == nil {
		return fmt.Errorf("%s is not running; -start %s brings it back", name, name)
	}
	<-p.done
	return nil
}

// tell sends a signal to a process that is to end, nil if it is not running.
func (c *crew) tell(name string, sig os.Signal) *child {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.running[name]
	if p == nil {
		return nil
	}
	p.stopped = true
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.say("cannot stop %s: %v", name, err)
	}
	return p
}

// stop ends all processes, one group after the other.
func (c *crew) stop(groups ...[]string) {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	for _, names := range groups {
		c.stopTogether(names)
	}
}

// stopTogether asks the named processes to stop, waits, and kills those that do
// not go.
func (c *crew) stopTogether(names []string) {
	var asked []*child
	for _, name := range names {
		if p := c.tell(name, syscall.SIGTERM); p != nil {
			asked = append(asked, p)
		}
	}
	grace := time.NewTimer(c.grace)
	defer grace.Stop()
	for _, p := range asked {
		select {
		case <-p.done:
			continue
		case <-grace.C:
			grace.Reset(0) // the others have had their time too
		}
		c.say("%s did not stop within %s; killing it", p.name, c.grace)
		c.tell(p.name, os.Kill)
		<-p.done
	}
}

// lastWords keeps the end of what a process prints.
type lastWords struct {
	mu   sync.Mutex
	text []byte
}

const (
	keptBytes = 4 << 10
	keptLines = 5
)

// Write implements io.Writer.
func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	if extra := len(w.text) - keptBytes; extra > 0 {
		w.text = append(w.text[:0], w.text[extra:]...)
	}
	return len(p), nil
}

// String gives the last lines, each on an indented line of its own.
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	lines := strings.Split(strings.TrimSpace(string(w.text)), "\n")
	for _, line := range lines[max(0, len(lines)-keptLines):] {
		if line != "" {
			b.WriteString("\n          " + line)
		}
	}
	return b.String()
}
