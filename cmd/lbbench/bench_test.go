//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestMain lets the test program play the parts that lbbench plays itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if part, ok := parts()[os.Args[1]]; ok {
			if err := part(os.Args[2:], os.Stdout); err != nil {
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func TestSettings(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one core: lbbench refuses to run here")
	}
	s, err := parseSettings([]string{"-cases", "small,idle", "-peers", "nginx", "-rounds", "7"}, io.Discard)
	if err != nil || s.rounds != 7 || strings.Join(s.cases, "+") != "small+idle" || strings.Join(s.peers, "+") != "nginx" {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, args := range []string{"-cases tiny", "-peers apache", "-cases ,", "-rounds 0", "-time 1ms", "-core 0 -load-core 0",
		"-core -1", "-idle 0", "-load ab", "-none", "word"} {
		if _, err := parseSettings(strings.Fields(args), io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%s: got %v, want a usage error", args, err)
		}
	}
}

func TestHelp(t *testing.T) {
	var text bytes.Buffer
	if _, err := parseSettings([]string{"-h"}, &text); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want flag.ErrHelp", err)
	}
	for _, want := range append(caseNames(), append(peerNames(), "-markdown", "95 %")...) {
		if !strings.Contains(text.String(), want) {
			t.Errorf("help says nothing of %s", want)
		}
	}
}

// Each program accepts the file that is made for it.
func TestTemplatesAreAccepted(t *testing.T) {
	for _, p := range allPeers() {
		if p.check == nil {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			path, err := p.find()
			if err != nil {
				t.Skip(err)
			}
			at := place{Dir: t.TempDir(), Listen: "127.0.0.1:20080", Port: 20080, Backend: "127.0.0.1:20081", Files: 1024}
			if err := p.configure(&at); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(path, p.check(at)...)
			cmd.Env = append(os.Environ(), "HOME="+at.Dir, "XDG_CONFIG_HOME="+at.Dir, "XDG_DATA_HOME="+at.Dir)
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
}

// One short round, all the way from real processes to the table.
func TestEndToEnd(t *testing.T) {
	skipWithout(t, "wrk", "taskset")
	dir := t.TempDir()
	var text bytes.Buffer
	err := run(context.Background(), strings.Fields("-rounds 1 -time 200ms -cases small -peers reverseproxy -markdown "+
		dir+"/t.md -svg "+dir+"/t.svg"), &text, testLog{t})
	if err != nil {
		t.Fatalf("%v\n%s", err, &text)
	}
	for _, file := range []string{"t.md", "t.svg"} {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !bytes.Contains(content, []byte("reverseproxy")) {
			t.Errorf("%s: got %q, %v, want the peer's name in it", file, content, err)
		}
	}
	if !strings.Contains(text.String(), "lbnode ÷ peer") {
		t.Errorf("got %s, want a table of ratios", &text)
	}
}

// A proxy that answers with errors fails its row, and the whole.
func TestFailureShows(t *testing.T) {
	skipWithout(t, "wrk", "taskset")
	s, err := parseSettings(strings.Fields("-rounds 1 -time 200ms -cases small -peers reverseproxy"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBench(context.Background(), s, testLog{t})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	b.programs["reverseproxy"] = "/bin/false"
	var text bytes.Buffer
	if err := b.runAll(context.Background(), &text); !errors.Is(err, errFailed) {
		t.Errorf("got %v, want errFailed", err)
	}
	if !strings.Contains(text.String(), "reverseproxy FAILED: reverseproxy ended at its start") {
		t.Errorf("got %s, want the failed row and why", &text)
	}
}

// When the run is stopped, nothing of it is left.
func TestStopLeavesNothing(t *testing.T) {
	skipWithout(t, "wrk", "taskset")
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	ctx, stop := context.WithCancel(context.Background())
	stopAtFirstRound := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("round 1")) {
			stop()
		}
		return len(p), nil
	})
	err := run(ctx, strings.Fields("-rounds 50 -time 1s -cases small -peers reverseproxy"), io.Discard, stopAtFirstRound)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if left, _ := filepath.Glob(temporary + "/lbbench-*"); len(left) > 0 {
		t.Errorf("got files left: %v", left)
	}
	all, err := readStats()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range family(all, os.Getpid()) {
		if s.pid != os.Getpid() {
			t.Errorf("got process %d left", s.pid)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// testLog takes the progress into the log of the test.
type testLog struct{ *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func skipWithout(t *testing.T, tools ...string) {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Skip("one core: lbbench refuses to run here")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
}
