package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// shake connects two nodes and returns both ends, or what either says against it.
func shake(t *testing.T, client, server *keys, want string) (near, far net.Conn, errs [2]error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			errs[1] = err
			return
		}
		if far, errs[1] = server.secure(ctx, raw, tls.Server, ""); errs[1] != nil {
			raw.Close()
		}
	}()
	near, errs[0] = (&dialer{keys: client}).dial(ctx, nameIf(want, listener.Addr().String()), []byte{callConn})
	<-done
	for _, conn := range []net.Conn{near, far} {
		if conn != nil {
			t.Cleanup(func() { conn.Close() })
		}
	}
	return near, far, errs
}

func nameIf(id, addr string) string {
	if id == "" {
		return addr
	}
	return named(id, addr)
}

// A secret is replaced in three steps. Nodes that are one step apart must reach each
// other, whoever connects; nodes without a secret in common must not.
func TestRotationStepsAreSafe(t *testing.T) {
	steps := []string{"a", "ab", "ba", "b"} // before, installed, used, removed
	for i, mine := range steps {
		for j, theirs := range steps {
			client, server := testKeys(t, "n1", []byte(mine)...), testKeys(t, "n2", []byte(theirs)...)
			_, _, errs := shake(t, client, server, "n2")
			met := errs[0] == nil && errs[1] == nil
			heard := slices.ContainsFunc(server.keyring.GetKeys(), func(key []byte) bool {
				return string(key) == string(client.keyring.GetPrimaryKey())
			})
			switch apart := max(i-j, j-i); {
			case apart <= 1 && !(met && heard):
				t.Errorf("%s calls %s: got connected %v (%v), heard %v, want both", mine, theirs, met, errs, heard)
			case apart == 3 && (met || heard):
				t.Errorf("%s calls %s: got connected %v, heard %v, want neither", mine, theirs, met, heard)
			}
		}
	}
}

// However the secrets change, the keyring of gossip holds just these, the one in use
// first.
func TestKeyringFollowsTheSecrets(t *testing.T) {
	k := testKeys(t, "n1", 'a')
	for _, letters := range []string{"ab", "ba", "b", "bcd", "cd", "acde", "eca", "ae", "xyz", "z"} {
		if err := k.set(testSecrets([]byte(letters)...)); err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, key := range k.keyring.GetKeys() {
			got = append(got, string(key))
		}
		for _, c := range k.current() {
			want = append(want, string(c.gossip))
		}
		if got[0] != want[0] {
			t.Errorf("%s: gossip does not use the first secret", letters)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: gossip accepts other secrets than these", letters)
		}
	}
	for name, bad := range map[string][][]byte{"none": nil, "a short one": {[]byte("short")}} {
		if err := k.set(bad); err == nil || !slices.Equal(k.fingerprints(), testKeys(t, "n2", 'z').fingerprints()) {
			t.Errorf("%s: got %v and %v in force, want it refused and nothing changed", name, err, k.fingerprints())
		}
	}
}

// Whoever decrypts must not see the ring while it is changed. The race detector
// watches.
func TestKeyringChangesUnderReaders(t *testing.T) {
	ring := &memberlist.Keyring{}
	var all []credential
	for _, secret := range testSecrets('a', 'b', 'c', 'd') {
		c, err := newCredential(secret, "n1")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := setKeyring(ring, all); err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			for _, key := range ring.GetKeys() {
				reads.Add(int64(key[0]) & 1)
			}
		}
	})
	for i := 0; i < 2000 || reads.Load() < 1000; i++ {
		if err := setKeyring(ring, slices.Delete(slices.Clone(all), i%4, i%4+1)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	reading.Wait()
}

// What a secret that is taken out has authenticated is closed at either end, and the
// rest stays.
func TestRemovedSecretClosesItsConnections(t *testing.T) {
	client, server := testKeys(t, "n1", 'a'), testKeys(t, "n2", 'a')
	oldNear, oldFar, _ := shake(t, client, server, "")
	for _, k := range []*keys{client, server} {
		if err := k.set(testSecrets('b', 'a')); err != nil {
			t.Fatal(err)
		}
	}
	near, far, _ := shake(t, client, server, "")
	for _, test := range []struct {
		name   string
		change *keys
		ends   []net.Conn
	}{
		{"the one who called", client, []net.Conn{oldNear, oldFar}},
		{"the one who was called", server, []net.Conn{oldNear, oldFar}},
	} {
		if test.change == server { // the first one's connections are gone already
			test.ends[0], test.ends[1], _ = shake(t, testKeys(t, "n3", 'a', 'b'), server, "")
		}
		if err := test.change.set(testSecrets('b')); err != nil {
			t.Fatal(err)
		}
		for i, conn := range test.ends {
			conn.SetDeadline(time.Now().Add(waitLong))
			if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s takes the secret out: end %d of an old connection is still open", test.name, i)
			}
		}
	}
	for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
		ends[1].SetDeadline(time.Now().Add(waitLong))
		if _, err := ends[0].Write([]byte("x")); err != nil {
			t.Fatalf("a connection of the secret that stays: %v", err)
		}
		for got := byte(0); got != 'x'; { // the first byte of all is the preamble
			var b [1]byte
			if _, err := io.ReadFull(ends[1], b[:]); err != nil {
				t.Fatalf("a connection of the secret that stays: %v", err)
			}
			got = b[0]
		}
	}
	near.Close()
	if got := len(client.conns); got != 0 {
		t.Errorf("got %d connections kept after all are closed, want 0", got)
	}
}

func TestPeerMustBeTheNodeThatIsMeant(t *testing.T) {
	unnamed := testKeys(t, "n2", 's')
	certificate, err := selfSigned(unnamed.accepted[0].certificate.PrivateKey.(ed25519.PrivateKey), "")
	if err != nil {
		t.Fatal(err)
	}
	unnamed.accepted[0].certificate = certificate
	for _, test := range []struct {
		name           string
		client, server *keys
		meant, refusal string
	}{
		{"the node that is meant", testKeys(t, "n1", 's'), testKeys(t, "n2", 's'), "n2", ""},
		{"whoever is there", testKeys(t, "n1", 's'), testKeys(t, "n2", 's'), "", ""},
		{"another node at its address", testKeys(t, "n1", 's'), testKeys(t, "n3", 's'), "n2", "node n3 is there, not n2"},
		{"a node of the version before", testKeys(t, "n1", 's'), unnamed, "n2", ""},
		{"a call of the version before", unnamed, testKeys(t, "n1", 's'), "", ""},
		{"another secret", testKeys(t, "n1", 's'), testKeys(t, "n2", 'x'), "", "another -secret"},
	} {
		_, _, errs := shake(t, test.client, test.server, test.meant)
		switch {
		case test.refusal == "" && (errs[0] != nil || errs[1] != nil):
			t.Errorf("%s: got %v, want them to meet", test.name, errs)
		case test.refusal != "" && (errs[0] == nil || !strings.Contains(errs[0].Error(), test.refusal)):
			t.Errorf("%s: got %v, want it refused: %s", test.name, errs, test.refusal)
		}
	}
}

func TestNamedAddresses(t *testing.T) {
	for _, addr := range []string{"10.0.0.1:7947", "[fe80::1]:7947"} {
		if id, got := splitNamed(named("n1", addr)); id != "n1" || got != addr {
			t.Errorf("got %q at %s, want n1 at %s", id, got, addr)
		}
		if id, got := splitNamed(addr); id != "" || got != addr {
			t.Errorf("got %q at %s, want nobody at %s", id, got, addr)
		}
	}
}
