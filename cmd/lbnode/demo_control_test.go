package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClaimDir(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(path string) error
		want    string // in the error, empty for none
	}{
		{"new", func(string) error { return nil }, ""},
		{"ours", func(path string) error { return os.Mkdir(path, 0o755) }, ""},
		{"file", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "not a directory"},
		{"link", func(path string) error { return os.Symlink(os.TempDir(), path) }, "not a directory"},
		{"no parent", func(path string) error { return os.Remove(filepath.Dir(path)) }, "cannot make the demo's directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "demo")
			if err := test.prepare(path); err != nil {
				t.Fatal(err)
			}
			err := claimDir(path)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got error %v, want %q", err, test.want)
				}
				return
			}
			info, statErr := os.Stat(path)
			if err != nil || statErr != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("got %v, %v, %v; want a directory for us alone", err, statErr, info)
			}
		})
	}
}

func TestForeignDirIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"claim": claimDir(dir), "request": demoCommand{"kill", "lb1"}.send(dir, io.Discard)} {
		if err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("%s: got error %v, want that it belongs to another user", name, err)
		}
	}
}

func TestEmptyDirKeepsTheSocket(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{controlSocket, "file", "lb1/raft.db"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := emptyDir(dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := filepath.Glob(filepath.Join(dir, "*")); len(got) != 1 || filepath.Base(got[0]) != controlSocket {
		t.Errorf("got %v left, want the socket", got)
	}
}

func TestControlAnswers(t *testing.T) {
	dir, out := shortTempDir(t), &transcript{}
	if err := os.WriteFile(filepath.Join(dir, controlSocket), nil, 0o600); err != nil { // left by a demo that was killed
		t.Fatal(err)
	}
	c := newTestCrew(t, out)
	control, err := openDemoControl(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	defer control.close()
	for _, test := range []struct{ request, want string }{
		{"start web-1\n", "ok"},
		{"start web-1\n", "error: web-1 is running already"},
		{"kill web-1\n", "ok"},
		{"kill web-1\n", "error: web-1 is not running; -start web-1 brings it back"},
		{"kill web-l\n", `error: the demo has no "web-l" (did you mean "web-1"?); it has web-1, web-2`},
		{"start \n", `error: the demo has no ""; it has web-1, web-2`},
		{"dance web-1\n", `error: unknown request "dance"`},
	} {
		got, err := ask(dir, test.request)
		if err != nil || got != test.want {
			t.Errorf("%q: got %q, %v; want %q", test.request, got, err, test.want)
		}
	}
	if got, err := ask(dir, strings.Repeat("x", 2*controlLine)+"\n"); err == nil {
		t.Errorf("a line too long: got %q, want no answer", got)
	}
	if got, want := out.String(), "web-1 started, as asked\nweb-1 killed, as asked\n"; got != want {
		t.Errorf("got output %q, want %q", got, want)
	}
}

func TestCheckPort(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for network, addr := range map[string]net.Addr{"tcp": tcp.Addr(), "udp": udp.LocalAddr()} {
		want := "cannot start the demo: " + network + " " + addr.String() + " (traffic of lb1) is in use; stop what listens there"
		if err := checkPort(network, addr.String(), "traffic of lb1"); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
	if err := freeDemo(t).checkPorts(); err != nil {
		t.Errorf("free ports: got error %v", err)
	}
}
