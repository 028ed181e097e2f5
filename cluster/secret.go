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
	"errors"
	"fmt"
	"math/big"
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

// ReadSecret reads the secret that the nodes of a cluster share from a file. It
// refuses a file that other users can read.
func ReadSecret(path string) ([]byte, error) {
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
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != secretBytes {
		return nil, fmt.Errorf("%s does not hold a secret made by lbnode keygen", path)
	}
	return key, nil
}

// derive gives a key for one purpose from the shared secret (HKDF, RFC 5869), so
// that no two purposes share a key.
func derive(secret []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "lbnode "+purpose, 32)
}

// gossipKey is the AES-256 key of the gossip.
func gossipKey(secret []byte) ([]byte, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	return derive(secret, "gossip")
}

// tlsConfig gives the mutual TLS of node-to-node calls, nil without a secret.
// Every node derives the same Ed25519 key from the secret; the handshake proves
// that the peer has it, so the certificates around it need no authority.
func tlsConfig(secret []byte) (*tls.Config, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	seed, err := derive(secret, "node tls")
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	certificate, err := selfSigned(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:       []tls.Certificate{certificate},
		MinVersion:         tls.VersionTLS13,
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // replaced by the check of the key itself, below
		VerifyConnection:   func(s tls.ConnectionState) error { return hasKey(s, key) },
	}, nil
}

func hasKey(s tls.ConnectionState, key ed25519.PrivateKey) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the peer shows no certificate")
	}
	peer, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || !bytes.Equal(peer, key.Public().(ed25519.PublicKey)) {
		return errors.New("the peer has another -secret")
	}
	return nil
}

func selfSigned(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "lbnode"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no expiry
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot make the node's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
