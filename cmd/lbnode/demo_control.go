package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	controlSocket  = "control"
	controlTimeout = 10 * time.Second
	controlLine    = 256 // bytes that a request may have
)

// demoDir is the directory of this user's demo.
func demoDir() string {
	return filepath.Join(os.TempDir(), "lbnode-demo-"+strconv.Itoa(os.Getuid()))
}

// claimDir makes dir, for this user alone. Since the name can be guessed, another
// user's directory or a link in its place is refused.
func claimDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot make the demo's directory: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("cannot protect the demo's directory: %w", err)
	}
	return nil
}

func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the demo's directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use %s for the demo: it is not a directory; remove it or set TMPDIR", dir)
	}
	if !ownedByUs(info) {
		return fmt.Errorf("cannot use %s for the demo: it belongs to another user; set TMPDIR", dir)
	}
	return nil
}

// emptyDir removes what an earlier demo left, but for the socket of this one.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot read the demo's directory: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == controlSocket {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("cannot empty the demo's directory: %w", err)
		}
	}
	return nil
}

// demoControl answers the requests "kill NAME" and "start NAME", one line each, with
// "ok" or "error: why".
type demoControl struct {
	listener net.Listener
	crew     *crew
	serving  sync.WaitGroup
}

// openDemoControl listens in dir. It fails if a demo is running there.
func openDemoControl(dir string, crew *crew) (*demoControl, error) {
	path := filepath.Join(dir, controlSocket)
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, errors.New("cannot start the demo: one is running already; stop it with Ctrl-C in its terminal")
	}
	// What is there was left by a demo that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot open the demo's control socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the demo's control socket: %w", err)
	}
	c := &demoControl{listener: listener, crew: crew}
	c.serving.Go(c.serve)
	return c, nil
}

func (c *demoControl) close() {
	c.listener.Close()
	c.serving.Wait()
}

func (c *demoControl) serve() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.answer(conn)
	}
}

func (c *demoControl) answer(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(controlTimeout))
	line, err := bufio.NewReader(io.LimitReader(conn, controlLine)).ReadString('\n')
	if err != nil {
		return
	}
	verb, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err := c.do(verb, name); err != nil {
		fmt.Fprintf(conn, "error: %v\n", err)
		return
	}
	io.WriteString(conn, "ok\n")
}

func (c *demoControl) do(verb, name string) error {
	switch verb {
	case "kill":
		if err := c.crew.kill(name); err != nil {
			return err
		}
		c.crew.say("%s killed, as asked", name)
	case "start":
		if err := c.crew.start(name); err != nil {
			return err
		}
		c.crew.say("%s started, as asked", name)
	default:
		return fmt.Errorf("unknown request %q", verb)
	}
	return nil
}

// demoCommand is what the user asks of a running demo.
type demoCommand struct{ verb, name string }

// send has the demo that runs in dir do it.
func (d demoCommand) send(dir string, stdout io.Writer) error {
	if strings.ContainsAny(d.name, " \r\n") || len(d.name) > controlLine/2 {
		return fmt.Errorf("%w: %q is no name of a node or a backend", errUsage, d.name)
	}
	answer, err := ask(dir, d.verb+" "+d.name+"\n")
	if err != nil {
		return err
	}
	if reason, failed := strings.CutPrefix(answer, "error: "); failed {
		return fmt.Errorf("cannot %s: %s", d.verb, reason)
	}
	_, err = fmt.Fprintf(stdout, "%s %sed\n", d.name, d.verb)
	return err
}

func ask(dir, request string) (string, error) {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return "", errors.New("cannot reach the demo: none is running; start one with lbnode demo")
	}
	if err := checkDir(dir); err != nil {
		return "", err
	}
	conn, err := net.Dial("unix", filepath.Join(dir, controlSocket))
	if err != nil {
		return "", fmt.Errorf("cannot reach the demo: %w; is it running? start one with lbnode demo", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(controlTimeout))
	if _, err := io.WriteString(conn, request); err != nil {
		return "", fmt.Errorf("cannot ask the demo: %w", err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("cannot read the demo's answer: %w", err)
	}
	return strings.TrimSpace(answer), nil
}
