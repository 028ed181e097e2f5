package cluster

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"strings"
	"time"
)

const secretBytes = 32

// GenerateSecret returns a new secret in the form that ReadSecret reads.
func GenerateSecret() string {
	var key [secretBytes]byte
	rand.Read(key[:])
	return base64.StdEncoding.EncodeToString(key[:])
}

// ReadSecrets reads the secrets that the nodes of a cluster share from a file, one a
// line; empty lines and those that begin with # do not count. The first is used,
// all are accepted. It refuses a file that other users can read. Its errors say
// what is wrong in which line, and never what stands there.
func ReadSecrets(path string) ([][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the secret: %w; make one with lbnode keygen", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("the secret %s can be read by every user of this machine: chmod 600 %[1]s", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the secret: %w", err)
	}
	var secrets [][]byte
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(secret) != secretBytes {
			return nil, fmt.Errorf("%s line %d is not a secret made by lbnode keygen", path, i+1)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s holds no secret: make one with lbnode keygen", path)
	}
	return secrets, nil
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
