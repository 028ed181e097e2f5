package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// volume is a small file system that a node has to itself.
type volume struct {
	t   *testing.T
	dir string
}

// mountVolume makes one and removes it when the test ends.
func mountVolume(t *testing.T) *volume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "fsfreeze"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs ", tool)
		}
	}
	image, v := filepath.Join(t.TempDir(), "image"), &volume{t, t.TempDir()}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	v.tool("mkfs.ext4", "-q", "-m", "0", image)
	if out, err := exec.Command("mount", "-o", "loop", image, v.dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a file as a file system: %v: %s", err, out)
	}
	t.Cleanup(func() { v.tool("umount", v.dir) })
	return v
}

func (v *volume) tool(name string, args ...string) {
	v.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// freeze makes the volume hang until thaw is called or the test ends.
func (v *volume) freeze() {
	v.t.Helper()
	v.t.Cleanup(func() { exec.Command("fsfreeze", "-u", v.dir).Run() }) // an error: it is thawed already
	v.tool("fsfreeze", "-f", v.dir)
}

func (v *volume) thaw() {
	v.t.Helper()
	v.tool("fsfreeze", "-u", v.dir)
}

// fill leaves no space on the volume until clear is called.
func (v *volume) fill() {
	v.t.Helper()
	file, err := os.Create(filepath.Join(v.dir, "ballast"))
	if err != nil {
		v.t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{1 << 20, 64 << 10, 4 << 10, 1 << 10} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
	}
}

func (v *volume) clear() {
	v.t.Helper()
	if err := os.Remove(filepath.Join(v.dir, "ballast")); err != nil {
		v.t.Fatal(err)
	}
}

// The disk of the leader stops answering, and answers again.
func hangLeadersDisk(t *testing.T) {
	spoilDisk(t, "hangs", (*volume).freeze, (*volume).thaw)
}

// The disk of the leader is full, and has space again.
func fillLeadersDisk(t *testing.T) {
	spoilDisk(t, "full", (*volume).fill, (*volume).clear)
}

// spoilDisk spoils the disk of the leader and mends it again, under load.
func spoilDisk(t *testing.T, what string, spoil, mend func(*volume)) {
	mounted := []*volume{mountVolume(t), mountVolume(t), mountVolume(t)} // before the nodes, to be unmounted after them
	nodes, volumes := newLBs(t, 3), map[*lb]*volume{}
	for i, n := range nodes {
		volumes[n] = mounted[i]
		*n.argument("-data-dir") = filepath.Join(mounted[i].dir, "data")
	}
	tr := startTrial(t, nodes)
	var ceased, moved, healed []time.Duration
	for range amount(1, 5) {
		lead, rest := roles(t, nodes)
		clients := tr.journal.startWriting(nodes, 6)
		began := time.Now()
		spoil(volumes[lead])
		eventually(t, patience, "the leader steps down", func() bool { v := lead.view(); return v != nil && v.Leader != lead.name })
		ceased = append(ceased, time.Since(began))
		eventually(t, patience, "another node leads", func() bool {
			return every(rest, func(n *lb) bool { v := n.view(); return v != nil && v.Leader != "" && v.Leader != lead.name })
		})
		moved = append(moved, time.Since(began))
		for _, n := range rest {
			eventually(t, patience, "the others take writes", func() bool { return tr.journal.write(n) })
		}
		warned := ""
		eventually(t, patience, "/cluster of another node warns of the disk", func() bool {
			warned = rest[0].warnings()
			return strings.Contains(warned, lead.name+": the disk ")
		})
		t.Logf("/cluster warns: %q", warned)
		hold(t, amount(2*time.Second, 30*time.Second))
		clients.stop()
		mend(volumes[lead])
		healed = append(healed, whole(t, nodes))
	}
	tr.end(t, fmt.Sprintf("disk %s: stepped down after %s, another leader after %s; whole again once it is well %s", what, spread(ceased), spread(moved), spread(healed)))
}
