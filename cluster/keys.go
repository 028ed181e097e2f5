package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

var (
	errNoCertificate = errors.New("the peer shows no certificate")
	errOtherSecret   = errors.New("the peer has another -secret")
	errSecretGone    = errors.New("the secret was taken out of use during the handshake")
	// errDouble: a node with this node's own id. It may only say hello, so that the
	// two find out which is the copy.
	errDouble = errors.New("the peer has this node's own id: a data directory was copied, and one of the two nodes must start with an empty one")
)

// keys are the secrets in force and the connections that were authenticated with
// them. They guard both gossip and the connections between nodes.
type keys struct {
	nodeID  string
	keyring *memberlist.Keyring // gossip's
	log     *libraryLog

	mu       sync.Mutex
	accepted []credential // the first is used; never empty
	conns    map[*peerConn]struct{}
}

// newKeys returns nil without secrets.
func newKeys(secrets [][]byte, nodeID string, log *libraryLog) (*keys, error) {
	if len(secrets) == 0 {
		return nil, nil
	}
	k := &keys{nodeID: nodeID, keyring: &memberlist.Keyring{}, log: log, conns: map[*peerConn]struct{}{}}
	return k, k.set(secrets)
}

// gossip is the keyring of gossip, nil for none.
func (k *keys) gossip() *memberlist.Keyring {
	if k == nil {
		return nil
	}
	return k.keyring
}

// fingerprints are those of the accepted secrets, the one in use first; none if
// nothing is protected.
func (k *keys) fingerprints() []string {
	if k == nil {
		return nil
	}
	var prints []string
	for _, c := range k.current() {
		prints = append(prints, c.fingerprint)
	}
	return prints
}

// current is what is in force now. It is not changed later.
func (k *keys) current() []credential {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.accepted
}

// set puts secrets in the place of those in force and closes the connections that
// one that is gone has authenticated. An error leaves all as it was.
func (k *keys) set(secrets [][]byte) error {
	var next []credential
	for _, secret := range secrets {
		c, err := newCredential(secret, k.nodeID)
		if err != nil {
			return err
		}
		if !accepts(next, c.fingerprint) {
			next = append(next, c)
		}
	}
	if len(next) == 0 {
		return errors.New("there is no secret")
	}
	if err := setKeyring(k.keyring, next); err != nil {
		return fmt.Errorf("cannot change the keys of gossip: %w", err)
	}
	k.mu.Lock()
	k.accepted = next
	var gone []*peerConn
	for conn := range k.conns {
		if !conn.stands(next) {
			gone = append(gone, conn)
			delete(k.conns, conn)
		}
	}
	k.mu.Unlock()
	for _, conn := range gone {
		conn.cut()
	}
	return nil
}

func accepts(credentials []credential, fingerprint string) bool {
	return slices.ContainsFunc(credentials, func(c credential) bool { return c.fingerprint == fingerprint })
}

// setKeyring makes the ring hold the keys of these credentials. To remove a key,
// memberlist moves the ones behind it forward under the eyes of those who decrypt
// with them; so only the last one is ever removed, and those behind are added again.
func setKeyring(ring *memberlist.Keyring, next []credential) error {
	if err := addKeys(ring, next); err != nil {
		return err
	}
	if err := ring.UseKey(next[0].gossip); err != nil {
		return err
	}
	held := ring.GetKeys()
	wanted := func(key []byte) bool {
		return slices.ContainsFunc(next, func(c credential) bool { return bytes.Equal(c.gossip, key) })
	}
	first := slices.IndexFunc(held, func(key []byte) bool { return !wanted(key) })
	if first < 0 {
		return nil
	}
	for i := len(held) - 1; i >= first; i-- {
		if err := ring.RemoveKey(held[i]); err != nil {
			return err
		}
	}
	return addKeys(ring, next)
}

func addKeys(ring *memberlist.Keyring, credentials []credential) error {
	for _, c := range credentials {
		if err := ring.AddKey(c.gossip); err != nil {
			return err
		}
	}
	return nil
}

// side is tls.Client or tls.Server.
type side func(net.Conn, *tls.Config) *tls.Conn

// secure proves to the peer at the other end of raw that this node knows the
// secret, and has it prove the same and, unless want is empty, that it is the node
// of that id. Each handshake takes the secrets that are in force when it begins.
func (k *keys) secure(ctx context.Context, raw net.Conn, as side, want string) (net.Conn, error) {
	accepted := k.current()
	stranger := &strangerConn{Conn: raw, left: maxHandshakeBytes}
	peer := &peerConn{keys: k, own: accepted[0].fingerprint}
	peer.Conn = as(stranger, &tls.Config{
		Certificates:           []tls.Certificate{accepted[0].certificate},
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // replaced by VerifyConnection
		SessionTicketsDisabled: true, // a ticket would outlive its secret
		VerifyConnection:       func(s tls.ConnectionState) error { return peer.meet(s, accepted, want) },
	})
	if err := peer.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	stranger.trusted = true
	return peer, k.keep(peer)
}

// keep notes a connection until it is closed.
func (k *keys) keep(conn *peerConn) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !conn.stands(k.accepted) {
		return errSecretGone
	}
	k.conns[conn] = struct{}{}
	return nil
}

// peerConn is a connection to a node that knows the secret.
type peerConn struct {
	*tls.Conn
	keys *keys
	// id is the node's, empty if it runs a version that does not say.
	id string
	// own and theirs are the fingerprints of the secrets that this node and the peer
	// have shown to know.
	own, theirs string
}

// meet checks the peer in its handshake.
func (c *peerConn) meet(s tls.ConnectionState, accepted []credential, want string) error {
	if len(s.PeerCertificates) == 0 {
		return errNoCertificate
	}
	leaf := s.PeerCertificates[0]
	i := slices.IndexFunc(accepted, func(a credential) bool { return a.public.Equal(leaf.PublicKey) })
	if i < 0 {
		return errOtherSecret
	}
	c.theirs, c.id = accepted[i].fingerprint, nodeOf(leaf)
	if c.id != "" && want != "" && c.id != want {
		return fmt.Errorf("node %s is there, not %s", c.id, want)
	}
	return nil
}

// refuseDouble returns and logs errDouble if the peer has this node's own id.
func (c *peerConn) refuseDouble() error {
	if c.id != c.keys.nodeID {
		return nil
	}
	c.keys.log.say(slog.LevelWarn, "refused a node: "+errDouble.Error(), "at", c.RemoteAddr(), "id", c.id)
	return errDouble
}

// stands says whether both ends have shown a secret that is still accepted.
func (c *peerConn) stands(accepted []credential) bool {
	return accepts(accepted, c.own) && accepts(accepted, c.theirs)
}

// cut closes the connection without a goodbye, for which a peer could let us wait;
// whoever uses it gets an error and closes it, too.
func (c *peerConn) cut() { c.NetConn().Close() }

// Close implements net.Conn.
func (c *peerConn) Close() error {
	c.keys.mu.Lock()
	delete(c.keys.conns, c)
	c.keys.mu.Unlock()
	return c.Conn.Close()
}

// CookieKeys are the keys that the cluster's nodes sign clients' cookies with: the first
// is for signing, all are accepted. They come from the secrets, or else from the cluster's
// id, which is no secret; there are none before the cluster has one.
func (c *Cluster) CookieKeys() (all [][]byte) {
	if c.keys != nil {
		for _, credential := range c.keys.current() {
			all = append(all, credential.cookies)
		}
		return all
	}
	id := c.id.clusterID()
	if id == "" {
		return nil
	}
	key, err := derive([]byte(id), forCookies)
	if err != nil { // it has any number of bytes, and 32 can always be derived
		panic("cluster: cannot derive a key from the cluster's id: " + err.Error())
	}
	return [][]byte{key}
}

// openKeys takes the secrets of the configuration.
func (c *Cluster) openKeys() (err error) {
	if c.keys, err = newKeys(c.cfg.Secrets, c.id.nodeID(), c.library); err != nil {
		return fmt.Errorf("cannot use the secret: %w", err)
	}
	return nil
}

// SetSecrets puts secrets in the place of those in force: the first is used, all
// are accepted. Connections that one that is gone has authenticated are closed, and
// opened again with one in force. A node that was opened without secrets takes none.
// An error leaves all as it was.
func (c *Cluster) SetSecrets(secrets [][]byte) error {
	if c.keys == nil {
		return errors.New("cannot change the secret: this node runs without one; give it -secret and restart it")
	}
	before := c.keys.current()
	if err := c.keys.set(secrets); err != nil {
		return fmt.Errorf("cannot change the secret: %w", err)
	}
	prints := c.keys.fingerprints()
	c.log.Info("took the secrets anew", "uses", prints[0], "accepts", prints)
	if !accepts(before, prints[0]) {
		c.log.Warn("uses a secret that it did not accept before: nodes that do not accept it yet and this one refuse each other", "uses", prints[0])
	}
	return nil
}
