package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// library is a directory of files that servers serve, and what is in them.
type library struct {
	root  string
	sizes []int
	sums  []string // SHA-256 of each, in hexadecimal
}

// aroundSteps are sizes around what a proxy may read, copy or splice at once.
func aroundSteps(all bool) []int {
	sizes := []int{0, 1, 8 << 10, 32<<10 - 1, 128 << 10, 128<<10 + 1, 1 << 20, 3<<20 + 7}
	if !all {
		return sizes
	}
	sizes = nil
	for _, step := range []int{0, 1, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 384 << 10, 1 << 20, 16 << 20} {
		sizes = append(sizes, step-1, step, step+1, step+rand.IntN(step+1))
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	return sizes[1:] // without -1
}

func newLibrary(t *testing.T, sizes []int) *library {
	t.Helper()
	l := &library{root: t.TempDir(), sizes: sizes}
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range sizes {
		data := make([]byte, size)
		random.Read(data)
		sum := sha256.Sum256(data)
		l.sums = append(l.sums, hex.EncodeToString(sum[:]))
		if err := os.WriteFile(filepath.Join(l.root, strconv.Itoa(size)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// paths of all files, in that folder.
func (l *library) paths(folder string) []string {
	var paths []string
	for _, size := range l.sizes {
		paths = append(paths, fmt.Sprintf("/%s/%d", folder, size))
	}
	return paths
}

// fileServer is a real web server that serves a library below /its-name/.
type fileServer struct {
	name    string
	program string
	config  string   // a file's content, in which the words in at are replaced
	args    []string // the same
	folders []string // besides its name
}

// fileServers are those that people put behind a balancer, each as its manual sets it up.
var fileServers = []fileServer{
	{
		name: "nginx", program: "nginx", args: []string{"-e", "stderr", "-p", "DIR", "-c", "CONFIG"},
		config: `daemon off; pid nginx.pid; worker_processes 1; USER events {}
			http { access_log off; sendfile on; tcp_nopush on;
				client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
				server { listen HOST:PORT; location /nginx/ { alias ROOT/; } } }`,
	},
	{
		name: "apache", program: "apache2", args: []string{"-X", "-d", "DIR", "-f", "CONFIG"},
		config: `LoadModule mpm_event_module MODULES/mod_mpm_event.so
			LoadModule authz_core_module MODULES/mod_authz_core.so
			LoadModule alias_module MODULES/mod_alias.so
			PidFile DIR/pid
			ErrorLog /dev/stderr
			Listen HOST:PORT
			ServerName localhost
			Alias "/apache/" "ROOT/"
			<Directory "ROOT">
				Require all granted
			</Directory>`,
	},
	{
		name: "caddy", program: "caddy", args: []string{"run", "--adapter", "caddyfile", "--config", "CONFIG"},
		config: `{
				admin off
				storage file_system DIR
			}
			http://:PORT {
				bind HOST
				handle_path /caddy/* {
					root * ROOT
					file_server
				}
			}`,
	},
	{
		name: "haproxy", program: "haproxy", args: []string{"-db", "-f", "CONFIG"},
		config: `defaults
				mode http
				timeout connect 10s
				timeout client 1m
				timeout server 1m
			listen files
				bind HOST:PORT
				http-request replace-path /haproxy/(.*) /\1
				server go BEHIND
			`,
	},
	{name: "node", program: "node", args: []string{"testdata/servers/files.mjs", "ROOT", "HOST", "PORT"}, folders: []string{"chunked"}},
	{name: "python", program: "python3", args: []string{"-m", "http.server", "-d", "DIR", "-b", "HOST", "PORT"}},
	{name: "python11", program: "python3", args: []string{"-m", "http.server", "--protocol", "HTTP/1.1", "-d", "DIR", "-b", "HOST", "PORT"}},
}

// start runs the server in an empty directory in which the library has the server's name, and
// returns its address. One that serves no files itself has Go's behind it.
func (s fileServer) start(t *testing.T, l *library) string {
	t.Helper()
	behind := httptest.NewServer(http.FileServer(http.Dir(l.root)))
	t.Cleanup(behind.Close)
	dir, addr := t.TempDir(), freeAddr(t)
	if err := os.Symlink(l.root, filepath.Join(dir, s.name)); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(addr)
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // who else may not read the test's directories
	}
	at := strings.NewReplacer("DIR", dir, "CONFIG", filepath.Join(dir, "config"), "ROOT", l.root, "HOST", host, "PORT", port,
		"USER", user, "MODULES", "/usr/lib/apache2/modules", "BEHIND", behind.Listener.Addr().String())
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(at.Replace(s.config)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newProcess(t, s.name)
	p.binary, p.env = program(t, s.program), []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir} // caddy keeps files there
	for _, arg := range s.args {
		p.args = append(p.args, at.Replace(arg))
	}
	p.start()
	eventually(t, time.Minute, s.name+" answers", func() bool {
		answer, err := http.Get("http://" + addr + l.paths(s.name)[0])
		if err == nil {
			answer.Body.Close()
		}
		return err == nil && answer.StatusCode == http.StatusOK
	})
	return addr
}

// program finds a program, also among those that only root has in its path, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Skip(name + " is not installed")
	}
	return path
}

// fileClients fetch paths of a server one after the other, over one connection where they
// can, and return the SHA-256 of each.
var fileClients = []struct {
	name    string
	program string
	fetch   func(t *testing.T, program, server string, paths []string) []string
}{
	{"go", "", fetchByGo},
	{"curl", "curl", fetchByCurl},
	{"wget", "wget", fetchByWget},
	{"python", "python3", fetchByScript("testdata/clients/fetch.py")},
	{"node", "node", fetchByScript("testdata/clients/fetch.mjs")},
}

func fetchByGo(t *testing.T, _, server string, paths []string) []string {
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var sums []string
	for _, path := range paths {
		answer, err := client.Get("http://" + server + path)
		if err != nil {
			t.Error(err)
			return nil
		}
		hash := sha256.New()
		_, err = io.Copy(hash, answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("%s: got %s, %v", path, answer.Status, err)
			return nil
		}
		sums = append(sums, hex.EncodeToString(hash.Sum(nil)))
	}
	return sums
}

func fetchByCurl(t *testing.T, program, server string, paths []string) []string {
	dir := t.TempDir()
	args := []string{"--silent", "--show-error", "--fail", "--max-time", "60"}
	for i, path := range paths {
		args = append(args, "http://"+server+path, "--output", filepath.Join(dir, strconv.Itoa(i)))
	}
	return fetchFiles(t, exec.Command(program, args...), dir, len(paths), strconv.Itoa)
}

func fetchByWget(t *testing.T, program, server string, paths []string) []string {
	dir := t.TempDir()
	args := []string{"--no-verbose", "--tries=1", "--timeout=60", "--directory-prefix", dir}
	for _, path := range paths {
		args = append(args, "http://"+server+path)
	}
	return fetchFiles(t, exec.Command(program, args...), dir, len(paths), func(i int) string { return filepath.Base(paths[i]) })
}

// fetchFiles runs a client that leaves files in a directory.
func fetchFiles(t *testing.T, client *exec.Cmd, dir string, count int, name func(int) string) []string {
	if out, err := client.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
		return nil
	}
	var sums []string
	for i := range count {
		data, err := os.ReadFile(filepath.Join(dir, name(i)))
		if err != nil {
			t.Error(err)
			return nil
		}
		sum := sha256.Sum256(data)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	return sums
}

// fetchByScript runs a script that prints the sums.
func fetchByScript(script string) func(*testing.T, string, string, []string) []string {
	return func(t *testing.T, program, server string, paths []string) []string {
		client := exec.Command(program, append([]string{script, server}, paths...)...)
		client.Stderr = os.Stderr
		out, err := client.Output()
		if err != nil {
			t.Error(err)
			return nil
		}
		return strings.Fields(string(out))
	}
}

// TestRealServers: what real clients get of real servers through a node is what the servers
// have, whatever its size. With -long there are more sizes, and each pair has five turns.
func TestRealServers(t *testing.T) {
	files, rounds := newLibrary(t, aroundSteps(*long)), amount(1, 5)
	node := newLBs(t, 1)[0]
	node.start()
	eventually(t, time.Minute, "the node is ready", func() bool { return own(node.view()).Ready })
	for _, server := range fileServers {
		t.Run(server.name, func(t *testing.T) {
			addr := server.start(t, files)
			folders := append(server.folders, server.name)
			node.serves(t, server.name, addr, folders)
			for _, client := range fileClients {
				t.Run(client.name, func(t *testing.T) {
					path := ""
					if client.program != "" {
						path = program(t, client.program)
					}
					for range rounds {
						for _, folder := range folders {
							files.compare(t, client.fetch(t, path, node.http, files.paths(folder)))
						}
					}
				})
			}
		})
	}
}

// TestRealUploads: what curl sends through a node is what a server gets, with a length and in
// chunks, which curl announces by Expect where it is much. Nothing at all is left out: curl 7.88
// never ends that in chunks.
func TestRealUploads(t *testing.T) {
	files, curl := newLibrary(t, aroundSteps(*long)[1:]), program(t, "curl")
	node := newLBs(t, 1)[0]
	node.start()
	eventually(t, time.Minute, "the node is ready", func() bool { return own(node.view()).Ready })
	server := fileServers[slices.IndexFunc(fileServers, func(s fileServer) bool { return s.name == "node" })]
	node.serves(t, server.name, server.start(t, files), []string{server.name})
	for _, framing := range []string{"Content-Type: text/plain", "Transfer-Encoding: chunked"} {
		args := []string{"--silent", "--show-error", "--fail", "--max-time", "60", "-H", framing}
		for _, path := range files.paths(server.name) {
			args = append(args, "--upload-file", filepath.Join(files.root, filepath.Base(path)), "http://"+node.http+path)
		}
		out, err := exec.Command(curl, args...).Output()
		if err != nil {
			t.Errorf("%s: %v", framing, err)
		}
		files.compare(t, strings.Fields(string(out)))
	}
}

// serves sends what is asked for in the folders to one server.
func (n *lb) serves(t *testing.T, name, addr string, folders []string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	n.write(t, "/v1/pools", fmt.Sprintf(`{"name": %q, "health_check": {"type": "tcp"}}`, name))
	n.write(t, "/v1/pools/"+name+"/backends", fmt.Sprintf(`{"name": "it", "host": %q, "port": %s}`, host, port))
	for _, folder := range folders {
		n.write(t, "/v1/routes", fmt.Sprintf(`{"path": "/%s", "pool": %q}`, folder, name))
	}
	eventually(t, time.Minute, name+" is healthy", func() bool {
		v := n.view()
		return v != nil && slices.ContainsFunc(v.Pools, func(p admin.ClusterPool) bool { return p.Name == name && p.HealthyBackends == 1 })
	})
}

// write posts to the node's API and wants it to be taken.
func (n *lb) write(t *testing.T, path, body string) {
	t.Helper()
	if r := n.ask("POST", path, body); r.err != nil || r.status != http.StatusCreated {
		t.Fatalf("POST %s %s: got %d %s, %v", path, body, r.status, r.body, r.err)
	}
}

// compare wants the sums to be those of the files.
func (l *library) compare(t *testing.T, got []string) {
	t.Helper()
	if got != nil && len(got) != len(l.sums) {
		t.Errorf("got %d files, want %d", len(got), len(l.sums))
		return
	}
	for i, sum := range got {
		if sum != l.sums[i] {
			t.Errorf("%d bytes: got other content", l.sizes[i])
		}
	}
}
