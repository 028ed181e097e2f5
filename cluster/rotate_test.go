package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A secret is replaced under writes to every node: none is refused, no member is
// lost, and in the end the old secret opens nothing.
func TestSecretIsReplacedUnderWrites(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, func(c *Config) { c.Secrets = testSecrets('a') })
	eventually(t, waitLong, "all are members and healthy", func() bool { return nodes[0].Status(t.Context()).Healthy })
	before := standing(nodes)
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for i, n := range nodes {
		writing.Go(func() { write(ctx, t, []*node{n}, fmt.Sprintf("n%d", i)) })
	}
	for _, letters := range []string{"ab", "ba", "b"} {
		want := testKeys(t, "n1", []byte(letters)...).fingerprints()
		for _, n := range nodes {
			from := n.View().Index
			if err := n.SetSecrets(testSecrets([]byte(letters)...)); err != nil {
				t.Fatal(err)
			}
			eventually(t, waitLong, "writes go on", func() bool { return n.View().Index > from+10 })
		}
		eventually(t, waitLong, "each node reports that the step is done on all", func() bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool {
				return slices.ContainsFunc(n.Status(t.Context()).Nodes, func(s NodeStatus) bool { return !slices.Equal(s.Secrets, want) })
			})
		})
		for _, n := range nodes {
			if got := n.unlikePeers(time.Now()); len(got) > 0 {
				t.Errorf("%s, after the step to %s: got %q of nodes that are one step apart", n.cfg.Name, letters, got)
			}
		}
	}
	cancel()
	writing.Wait()
	if after := standing(nodes); !maps.Equal(before, after) {
		t.Errorf("members came or went: got %v, want %v", after, before)
	}
	cfg := newConfig(t, "late", nodes[0].cfg.Bind)
	cfg.Join = append(cfg.Join, cfg.Bind)
	cfg.Secrets = testSecrets('a')
	late := start(t, cfg)
	eventually(t, waitLong, "a node with the old secret waits and says why", func() bool {
		return strings.Contains(late.degraded(), usesOther)
	})
	late.Stop()
	cfg.Secrets = testSecrets('b')
	late = start(t, cfg)
	waitFormed(t, append(nodes, late))
}

// standing is since when each node has thought what it thinks of each other one.
func standing(nodes []*node) map[string]string {
	opinions := map[string]string{}
	for _, n := range nodes {
		for _, m := range n.gossip.all() {
			if m.ID != n.ID() {
				opinions[n.cfg.Name+" of "+m.Name] = fmt.Sprint(m.State, " since ", m.Since.Format(time.RFC3339Nano))
			}
		}
	}
	return opinions
}

func TestSecretsThatCannotBeUsedChangeNothing(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, func(c *Config) { c.Secrets = testSecrets('a') })[0]
	want := n.keys.fingerprints()
	for name, bad := range map[string][][]byte{"none": nil, "one too short": {testSecrets('b')[0], []byte("short")}} {
		if err := n.SetSecrets(bad); err == nil || !slices.Equal(n.keys.fingerprints(), want) {
			t.Errorf("%s: got %v and %v in force, want it refused and %v", name, err, n.keys.fingerprints(), want)
		}
	}
	plain := startCluster(t, 1, nil)[0]
	if err := plain.SetSecrets(testSecrets('a')); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("got %v of a node without a secret, want it refused", err)
	}
}
