package cluster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

const secretBytes = 32

// GenerateSecret returns a new secret in the form that ReadSecret reads.
func GenerateSecret() string {
	var key [secretBytes]byte
	rand.Read(key[:])
	return base64.StdEncoding.EncodeToString(key[:])
}

// maxSecretFile bounds what is read of a file of secrets.
const maxSecretFile = 64 << 10

// ReadSecrets reads the secrets that the nodes of a cluster share from a file, one a
// line; empty lines and those that begin with # do not count, nor does what an editor
// or a shell may put around them. The first is used, all are accepted. It refuses a
// file that other users can read. Its errors say what is wrong in which line, and never
// what stands there.
func ReadSecrets(path string) ([][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the secret: %w; make one with lbnode keygen", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("the secret %s can be read by every user of this machine: chmod 600 %[1]s", path)
	}
	text, err := ReadText(path, maxSecretFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the secret: %w; make one with lbnode keygen", err)
	}
	var secrets [][]byte
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		secret, err := parseSecret(line)
		if err != nil {
			return nil, fmt.Errorf("%s line %d is not a secret made by lbnode keygen: %w", path, i+1, err)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s holds no secret: make one with lbnode keygen", path)
	}
	return secrets, nil
}

func parseSecret(line string) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(line)
	want := base64.StdEncoding.EncodedLen(secretBytes)
	switch {
	case len(line) != want:
		return nil, fmt.Errorf("it has %d characters, not %d", len(line), want)
	case err != nil || len(secret) != secretBytes:
		return nil, errors.New("it holds characters that no secret has")
	}
	return secret, nil
}

// ReadText reads a small text file as whoever wrote it meant it, without the byte order marks
// that some editors and shells put before it, and from UTF-16 if one says so. Its error says
// what is wrong with a file that is none.
func ReadText(path string, most int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	switch {
	case err != nil:
		return "", err
	case int64(len(data)) > most:
		return "", fmt.Errorf("%s has more than %d bytes", path, most)
	}
	if order := utf16Order(data); order != nil {
		data = fromUTF16(data[2:], order)
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return "", fmt.Errorf("%s is no text file", path)
	}
	return strings.ReplaceAll(string(data), "\ufeff", ""), nil // also those of files put behind one another
}

// utf16Order is the byte order that a file begins with if it is UTF-16.
func utf16Order(data []byte) binary.ByteOrder {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		return binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return binary.BigEndian
	}
	return nil
}

func fromUTF16(data []byte, order binary.ByteOrder) (text []byte) {
	var units []uint16
	for ; len(data) > 1; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	return []byte(string(utf16.Decode(units)))
}

// derive gives a key for one purpose from the shared secret (HKDF, RFC 5869), so
// that no two purposes share a key.
func derive(secret []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "lbnode "+purpose, 32)
}

// forCookies is the purpose of keys that cookies are signed with.
const forCookies = "cookies"

// credential is what a node makes of one secret.
type credential struct {
	// fingerprint tells secrets apart in logs and in /cluster. It gives nothing of
	// the secret away.
	fingerprint string
	gossip      []byte // the gossip's AES-256 key
	cookies     []byte // the key that cookies are signed with
	public      ed25519.PublicKey
	certificate tls.Certificate
}

// newCredential derives all from the secret but the certificate's URI, which names
// the node. Every node has the same Ed25519 key: a handshake proves that the peer
// knows the secret, so the certificates around the key need no authority.
func newCredential(secret []byte, nodeID string) (credential, error) {
	if len(secret) != secretBytes {
		return credential{}, fmt.Errorf("a secret has %d bytes, not %d", secretBytes, len(secret))
	}
	var derived [4][]byte
	for i, purpose := range []string{"gossip", "node tls", "fingerprint", forCookies} {
		var err error
		if derived[i], err = derive(secret, purpose); err != nil {
			return credential{}, fmt.Errorf("cannot derive a key from the secret: %w", err)
		}
	}
	key := ed25519.NewKeyFromSeed(derived[1])
	certificate, err := selfSigned(key, nodeID)
	return credential{
		fingerprint: hex.EncodeToString(derived[2][:4]),
		gossip:      derived[0],
		cookies:     derived[3],
		public:      key.Public().(ed25519.PublicKey),
		certificate: certificate,
	}, err
}

// nodeURI begins the URI by which a certificate names its node; the id follows.
const nodeURI = "lbnode:node/"

func selfSigned(key ed25519.PrivateKey, nodeID string) (tls.Certificate, error) {
	uri, err := url.Parse(nodeURI + nodeID)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot put the node's id %q in a certificate: %w", nodeID, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "lbnode"},
		URIs:         []*url.URL{uri},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no expiry
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot make the node's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// nodeOf is the id of the node that the certificate names; empty for one of a
// version that named none.
func nodeOf(certificate *x509.Certificate) string {
	for _, uri := range certificate.URIs {
		if id, ok := strings.CutPrefix(uri.String(), nodeURI); ok {
			return id
		}
	}
	return ""
}
