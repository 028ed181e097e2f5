package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// A member that comes back with another secret, or none, and the others say so of each other,
// and no longer once the secret is right.
func TestOtherSecretIsSaidByBothSides(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name            string
		others, its     [][]byte
		itSays, theySay string
	}{
		{"another", testSecrets('a'), testSecrets('x'), usesOther, usesOther},
		{"one that is accepted no more", testSecrets('b'), testSecrets('a', 'b'), refusesOurs, usesOther},
		{"none", testSecrets('a'), nil, onlyItHas, hasNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			nodes := startCluster(t, 3, func(c *Config) { c.Secrets = test.others })
			eventually(t, waitLong, "all are healthy", func() bool { return nodes[0].Status(t.Context()).Healthy })
			wrong, others := nodes[2], nodes[:2]
			wrong.Stop()
			cfg := wrong.cfg
			cfg.Secrets = test.its
			began := time.Now()
			wrong = start(t, cfg)
			says := func(n, of *node, what string) bool {
				return warns(t, n, fmt.Sprintf("%s: %s at %s %s", n.cfg.Name, of.cfg.Name, of.gossip.address(), what))
			}
			eventually(t, waitLong, "all say so in their status", func() bool {
				return says(wrong, others[0], test.itSays) && says(wrong, others[1], test.itSays) &&
					says(others[0], wrong, test.theySay) && says(others[1], wrong, test.theySay)
			})
			t.Logf("said after %s", time.Since(began).Round(time.Millisecond))
			eventually(t, waitLong, "it says so where it says that it is degraded", func() bool {
				return strings.Contains(wrong.degraded(), "("+test.itSays+")")
			})
			wrong.Stop()
			cfg.Secrets = test.others
			wrong = start(t, cfg)
			eventually(t, waitLong, "all are healthy and nobody speaks of secrets", func() bool {
				s := wrong.Status(t.Context())
				return s.Healthy && len(s.Warnings) == 0
			})
		})
	}
}

// A listed node that never was a member is named by its address.
func TestListedNodeWithOtherSecretIsNamed(t *testing.T) {
	t.Parallel()
	other := newConfig(t, "lb2")
	first := newConfig(t, "lb1")
	first.Secrets, other.Secrets = testSecrets('a'), testSecrets('b')
	n := start(t, first)
	waitFormed(t, []*node{n})
	n.Stop()
	other.Join = []string{first.Bind, other.Bind}
	first.Join = other.Join
	n = start(t, first)
	start(t, other)
	eventually(t, waitLong, "it is named", func() bool {
		return warns(t, n, "lb1: the node at "+other.Bind+" "+usesOther+": give both the same file")
	})
}

func TestUnlikeIsForgotten(t *testing.T) {
	var u unlike
	now := time.Now()
	u.note("10.0.0.1:1", errors.New("remote error: no installed keys could decrypt the message"), now)
	u.note("10.0.0.2:1", fmt.Errorf("%w: x", errOtherSecret), now)
	u.note("10.0.0.2:1", errUnreached, now) // which says nothing of secrets
	u.note("10.0.0.3:1", errUnreached, now)
	for addr, want := range map[string]string{"10.0.0.1:1": refusesOurs, "10.0.0.2:1": usesOther, "10.0.0.3:1": ""} {
		if got := u.at(now.Add(-1), addr); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
	u.note("10.0.0.1:1", nil, now)
	if got := u.at(now.Add(-1), "10.0.0.1:1") + u.at(now, "10.0.0.2:1"); got != "" {
		t.Errorf("got %q of a peer that was met and of one long not tried", got)
	}
}

// A peer that came back with the right secret, and dies soon after, is not said to have the wrong
// one of before.
func TestSecretThatWasCorrectedIsForgotten(t *testing.T) {
	n := start(t, newConfig(t, "lb1"))
	t.Cleanup(n.Stop)
	waitFormed(t, []*node{n})
	other := member{meta: meta{Name: "lb2", RaftAddr: "127.0.0.9:7947", ClusterID: n.id.clusterID()}, ID: NewID(), Addr: netip.MustParseAddrPort("127.0.0.9:7946")}
	said := &memberlist.Node{Name: other.ID, Addr: other.Addr.Addr().AsSlice(), Port: other.Addr.Port(), Meta: other.encode()}
	n.gossip.note(said, Failed)
	n.gossip.unlike.note(other.Addr.String(), errOtherSecret, time.Now())
	n.gossip.unlike.note(other.RaftAddr, errOtherSecret, time.Now())
	want := "lb2 at 127.0.0.9:7946 " + usesOther + ": give both the same file"
	if got := n.unlikePeers(time.Now()); !slices.Equal(got, []string{want}) {
		t.Fatalf("got %q, want %q", got, want)
	}
	n.gossip.note(said, Alive)
	n.gossip.note(said, Failed)
	if got := n.unlikePeers(time.Now()); len(got) > 0 {
		t.Errorf("got %q of a peer that has shared the secret since", got)
	}
}
