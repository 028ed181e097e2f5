package cluster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// testSecrets are secrets made of one repeated letter each.
func testSecrets(letters ...byte) [][]byte {
	var secrets [][]byte
	for _, letter := range letters {
		secrets = append(secrets, bytes.Repeat([]byte{letter}, secretBytes))
	}
	return secrets
}

func testKeys(t *testing.T, nodeID string, letters ...byte) *keys {
	t.Helper()
	k, err := newKeys(testSecrets(letters...), nodeID, newLibraryLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(dir, NewID())
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second := GenerateSecret(), GenerateSecret()
	wide := func(text string, order binary.AppendByteOrder) string {
		var data []byte
		for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
			data = order.AppendUint16(data, unit) // as a shell of Windows writes it
		}
		return string(data)
	}
	for _, text := range []string{
		first + "\n" + second,
		"# the new one\n" + first + "\n\n  # the old one\n" + second,
		first + "\r\n" + second + "\r\n" + first + "\r\n",
		"\ufeff" + first + "\r\n\ufeff" + second + "\r\n",
		"\n\t" + first + " \u00a0\n \n" + second + "  \n\n",
		wide(first+"\r\n"+second+"\r\n", binary.LittleEndian),
		wide(first+"\n"+second+"\n", binary.BigEndian),
	} {
		got, err := ReadSecrets(write(text, 0o600))
		if err != nil || len(got) < 2 || base64.StdEncoding.EncodeToString(got[0]) != first || base64.StdEncoding.EncodeToString(got[1]) != second {
			t.Errorf("%q: got %d secrets, %v, want the two", text, len(got), err)
		}
	}
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for word, path := range map[string]string{
		"chmod":           write(first, 0o644),
		"holds no secret": write("", 0o600),
		"line 1 is not a secret made by lbnode keygen: it has 9 characters, not 44": write("too-short", 0o600),
		"is no text file": write("\x7fELF\x02\x01\x00\xff\xfe", 0o600),
		"line 3 is not":   write("\ufeff# one\r\n"+first+"\r\n"+first[:43]+"!\r\n", 0o600),
		"has more than":   write(strings.Repeat("#\n", maxSecretFile), 0o600),
		"is a directory":  folder,
		"keygen":          write("# nothing\n\n", 0o600),
		"line 2 is not":   write(first+"\n"+second[1:]+"\n", 0o600),
		"line 1 is not":   write(first+" "+second, 0o600),
		"cannot read the": filepath.Join(dir, "none"),
	} {
		_, err := ReadSecrets(path)
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want an error that says %q", err, word)
		}
		if err != nil && (strings.Contains(err.Error(), first[1:9]) || strings.Contains(err.Error(), second[1:9])) {
			t.Errorf("the error %v shows a secret", err)
		}
	}
}

// A node of the version before proves the same key with a certificate that names no
// node, and checks nothing but the key.
func TestCertificateNamesItsNode(t *testing.T) {
	id := NewID()
	c, err := newCredential(testSecrets('s')[0], id)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := nodeOf(leaf); got != id {
		t.Errorf("got a certificate of node %q, want %q", got, id)
	}
	seed, err := derive(testSecrets('s')[0], "node tls")
	if err != nil {
		t.Fatal(err)
	}
	if want := ed25519.NewKeyFromSeed(seed).Public(); !c.public.Equal(want) || !c.public.Equal(leaf.PublicKey) {
		t.Error("the certificate's key is not the one that every version derives")
	}
	leaf.URIs = nil
	if got := nodeOf(leaf); got != "" {
		t.Errorf("got node %q of a certificate that names none", got)
	}
}

func TestFingerprintsTellSecretsApart(t *testing.T) {
	k := testKeys(t, "n1", 'a', 'b', 'a')
	got := k.fingerprints()
	if len(got) != 2 || got[0] == got[1] || len(got[0]) != 8 {
		t.Errorf("got %v, want two fingerprints of 8 digits", got)
	}
	if other := testKeys(t, "n2", 'a').fingerprints(); other[0] != got[0] {
		t.Errorf("got %s and %s of one secret on two nodes", other[0], got[0])
	}
	if none := (*keys)(nil).fingerprints(); none != nil {
		t.Errorf("got %v without a secret", none)
	}
}

// Cookies must be the same for all nodes, and stay valid while secrets are exchanged.
func TestCookieKeys(t *testing.T) {
	of := func(letters ...byte) [][]byte { return (&Cluster{keys: testKeys(t, "n1", letters...)}).CookieKeys() }
	one, two, both := of('a'), of('b'), of('b', 'a')
	if len(both) != 2 || !bytes.Equal(both[0], two[0]) || !bytes.Equal(both[1], one[0]) {
		t.Errorf("got keys %x, want those of the secrets in their order, %x and %x", both, two, one)
	}
	if other := (&Cluster{keys: testKeys(t, "n2", 'a')}).CookieKeys(); !bytes.Equal(other[0], one[0]) {
		t.Error("two nodes with one secret have two keys")
	}
	c := testKeys(t, "n1", 'a').current()[0]
	if bytes.Equal(c.cookies, c.gossip) || bytes.Contains(c.cookies, testSecrets('a')[0]) || len(c.cookies) != 32 {
		t.Error("the key for cookies is one for something else")
	}
	open := func(id string) [][]byte {
		return (&Cluster{id: &identity{data: identityFile{ClusterID: id}}}).CookieKeys()
	}
	if got := open(""); got != nil {
		t.Errorf("got keys %x without a cluster, want none", got)
	}
	if a, b := open("a"), open("b"); len(a) != 1 || bytes.Equal(a[0], b[0]) || !bytes.Equal(a[0], open("a")[0]) {
		t.Errorf("got keys %x and %x of two clusters, want one of each", a, b)
	}
}
