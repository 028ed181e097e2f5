package main

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
)

// secretFiles gives each node a file of its own with the secret in it.
func secretFiles(t *testing.T, nodes []*lb, secret string) []string {
	t.Helper()
	files := make([]string, len(nodes))
	for i, n := range nodes {
		files[i] = filepath.Join(t.TempDir(), "secret")
		writeFile(t, files[i], secret+"\n")
		n.args = append(n.args, "-secret", files[i])
	}
	return files
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hangUp sends the node the signal to reload.
func (n *lb) hangUp(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// A secret is replaced through the files and SIGHUP while requests and writes flow:
// none fails. Logs at debug level and /cluster show nothing of either secret.
func TestSecretIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	before, after := cluster.GenerateSecret(), cluster.GenerateSecret()
	nodes := newLBs(t, 3, "-log-level", "debug")
	files := secretFiles(t, nodes, before)
	backend, addr := newBackend(t, "web-1")
	backend.start()
	startAll(nodes)
	f := &fleet{nodes: nodes}
	f.waitHealthy(t, "three nodes form one cluster", nodes, 3)
	if code, answer := call(t, "POST", "http://"+nodes[0].admin+"/v1/pools/default/backends", fmt.Sprintf(`{"name":"web-1","url":"http://%s"}`, addr)); code != http.StatusCreated {
		t.Fatalf("cannot add the backend: %d %v", code, answer)
	}
	f.waitBackends(t, 30*time.Second, "web-1", "healthy")
	requests, writes := startLoad(t, nodes, 2), startWrites(t, nodes)
	for _, text := range []string{
		before + "\n" + after + "\n",
		"# the new one comes first\n" + after + "\n" + before + "\n",
		after + "\n",
	} {
		rotate(t, nodes, files, text)
	}
	writes.stop(t)
	requests.stop(t, "a secret replaced")
	refuseBadSecrets(t, nodes[0], files[0], after)
	refuseOldSecret(t, nodes, before)
	for _, n := range nodes {
		showsNoSecret(t, n, before, after)
	}
}

// rotate gives all nodes the same file, one after the other, and waits until each
// reports that it has taken it.
func rotate(t *testing.T, nodes []*lb, files []string, text string) {
	t.Helper()
	var seen []string
	for i, n := range nodes {
		had := own(n.view()).SecretFingerprints
		writeFile(t, files[i], text)
		n.hangUp(t)
		eventually(t, 30*time.Second, n.name+" takes the file", func() bool {
			seen = own(n.view()).SecretFingerprints
			return len(seen) > 0 && !slices.Equal(seen, had)
		})
	}
	eventually(t, 30*time.Second, "every node shows that the step is done on all", func() bool {
		return every(nodes, func(n *lb) bool {
			v := n.view()
			return v != nil && len(v.Nodes) == 3 && !slices.ContainsFunc(v.Nodes, func(n admin.Node) bool { return !slices.Equal(n.SecretFingerprints, seen) })
		})
	})
	t.Logf("on all nodes: %v", seen)
}

// refuseBadSecrets spoils the file: the node goes on with what it has and says what
// is wrong.
func refuseBadSecrets(t *testing.T, n *lb, file, secret string) {
	t.Helper()
	want := own(n.view()).SecretFingerprints
	writeFile(t, file, secret+"\n"+secret[:20]+"\n")
	n.hangUp(t)
	eventually(t, 30*time.Second, "the log says which line is wrong", func() bool {
		text, err := os.ReadFile(n.log)
		return err == nil && bytes.Contains(text, []byte("stay as they were")) && bytes.Contains(text, []byte(file+" line 2"))
	})
	if got := own(n.view()).SecretFingerprints; !slices.Equal(got, want) {
		t.Errorf("got %v in force after a bad file, want %v", got, want)
	}
}

// refuseOldSecret starts a node with the secret that was taken out.
func refuseOldSecret(t *testing.T, nodes []*lb, secret string) {
	t.Helper()
	late := newLBs(t, 1)
	secretFiles(t, late, secret)
	bind := slices.Index(nodes[0].args, "-bind")
	late[0].args = append(late[0].args, "-join", nodes[0].args[bind+1])
	late[0].start()
	eventually(t, 30*time.Second, "a node with the old secret waits and says why", func() bool {
		text, err := os.ReadFile(late[0].log)
		return err == nil && bytes.Contains(text, []byte("uses a secret that this node does not accept"))
	})
	if v := nodes[0].view(); v == nil || len(v.Nodes) != 3 {
		t.Errorf("got %+v, want a cluster of three still", v)
	}
	late[0].kill()
}

// showsNoSecret looks for the secrets, and the keys that are derived from them, in
// all that the node has printed and in what it shows of the cluster.
func showsNoSecret(t *testing.T, n *lb, secrets ...string) {
	t.Helper()
	text, err := os.ReadFile(n.log)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("level=DEBUG")) {
		t.Errorf("%s has logged nothing at debug level", n.name)
	}
	shown, err := json.Marshal(n.view())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(shown, []byte("secret_fingerprints")) {
		t.Errorf("%s shows no fingerprint: %s", n.name, shown)
	}
	text = append(text, shown...)
	for _, secret := range secrets {
		for _, form := range formsOf(t, secret) {
			if bytes.Contains(text, []byte(form)) {
				t.Errorf("%s shows %q of the secret %s", n.name, form, secret)
			}
		}
	}
}

// formsOf are the beginnings of a secret, and of the keys derived from it, in the ways
// that bytes are printed.
func formsOf(t *testing.T, secret string) []string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	var forms []string
	add := func(key []byte) {
		key = key[:12]
		decimal := strings.Trim(fmt.Sprint(key), "[]")
		forms = append(forms, string(key), base64.StdEncoding.EncodeToString(key), base64.URLEncoding.EncodeToString(key),
			hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), decimal, strings.ReplaceAll(decimal, " ", ", "))
	}
	add(raw)
	for _, purpose := range []string{"gossip", "node tls", "fingerprint"} {
		key, err := hkdf.Key(sha256.New, raw, nil, "lbnode "+purpose, 32)
		if err != nil {
			t.Fatal(err)
		}
		add(key)
	}
	return forms
}

// A node without a secret has nothing to reload, and the signal does not end it.
func TestHangUpWithoutSecret(t *testing.T) {
	n := newLBs(t, 1)[0]
	n.start()
	eventually(t, 30*time.Second, "it runs", func() bool { v := n.view(); return v != nil && v.Healthy })
	n.hangUp(t)
	eventually(t, 30*time.Second, "it says that there is nothing to reload", func() bool {
		text, err := os.ReadFile(n.log)
		return err == nil && bytes.Contains(text, []byte("nothing to reload"))
	})
	if n.view() == nil {
		t.Error("the node no longer answers")
	}
}

// writes changes the weight of web-1 through each node, again and again.
type writes struct {
	cancel  context.CancelFunc
	writing sync.WaitGroup
	mu      sync.Mutex
	sent    int
	failed  []string
}

func startWrites(t *testing.T, nodes []*lb) *writes {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w := &writes{cancel: cancel}
	for i, n := range nodes {
		w.writing.Go(func() { w.run(ctx, n, i+1) })
	}
	return w
}

func (w *writes) run(ctx context.Context, n *lb, weight int) {
	for ctx.Err() == nil {
		err := patch("http://"+n.admin+"/v1/pools/default/backends/web-1", fmt.Sprintf(`{"weight":%d}`, weight))
		w.mu.Lock()
		w.sent++
		if err != nil {
			w.failed = append(w.failed, n.name+": "+err.Error())
		}
		w.mu.Unlock()
	}
}

func patch(url, body string) error {
	request, err := http.NewRequest(http.MethodPatch, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}

func (w *writes) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	w.writing.Wait()
	t.Logf("%d writes, %d refused", w.sent, len(w.failed))
	if w.sent == 0 || len(w.failed) > 0 {
		t.Errorf("got %d of %d writes refused, want none of some: %v", len(w.failed), w.sent, w.failed)
	}
}
