package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lbnode/cluster/admin"
	"lbnode/state"
)

func TestSnapshotCommands(t *testing.T) {
	c := soloAPI(t)
	file := filepath.Join(t.TempDir(), "lbnode.json")
	mustRun(t, "backend add web-1 http://10.0.0.11:8080")
	mustRun(t, "backend add web-2 http://10.0.0.12:8080")
	mustRun(t, "route add example.com/api default")
	if got, want := mustRun(t, "snapshot save "+file), "saved 1 pool, 2 backends, 1 route of cluster"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("got mode %o, want 600", got)
	}
	want := c.View()

	mustRun(t, "backend rm web-2")
	mustRun(t, "backend set web-1 -weight 7")
	mustRun(t, "backend add web-3 http://10.0.0.13:8080")
	if _, err := lbnode(t, "snapshot restore "+file); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "-yes") {
		t.Errorf("without a terminal: got %v, want a usage error that names -yes", err)
	}
	if c.View().Pool("default").Backend("web-3") == nil {
		t.Error("a restore that nobody confirmed changed the cluster")
	}
	var said strings.Builder
	if err := run(t.Context(), strings.Fields("snapshot restore -yes "+file), io.Discard, &said); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"+ backend default/web-2: http://10.0.0.12:8080", "- backend default/web-3: http://10.0.0.13:8080",
		"~ backend default/web-1: http://10.0.0.11:8080, weight 7", "becomes http://10.0.0.11:8080, weight 1",
		"now:   1 pool, 2 backends, 1 route", "after: 1 pool, 2 backends, 1 route",
	} {
		if !strings.Contains(said.String(), line) {
			t.Errorf("got %q, want %q in it", &said, line)
		}
	}
	if got := c.View(); got.Digest() != want.Digest() {
		t.Errorf("got %+v, want what was saved, %+v", got, want)
	}
	if got := mustRun(t, "snapshot restore -yes "+file+" -o json"); !strings.Contains(got, `"changes": []`) {
		t.Errorf("a second time: got %s, want no changes", got)
	}
}

func TestSnapshotIsNotOverwritten(t *testing.T) {
	soloAPI(t)
	mustRun(t, "backend add web-1 http://10.0.0.11:8080")
	file := filepath.Join(t.TempDir(), "lbnode.json")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := lbnode(t, "snapshot save "+file); err == nil || !strings.Contains(err.Error(), "-force") {
		t.Errorf("got %v, want it refused", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "precious" {
		t.Errorf("got %q, %v, want the file untouched", got, err)
	}
	mustRun(t, "snapshot save -force "+file)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("got mode %o, want 600 although the old file had 644", got)
	}
	mustRun(t, "snapshot inspect "+file)
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want nothing beside the file", left, err)
	}
}

func TestSnapshotInspect(t *testing.T) {
	soloAPI(t)
	mustRun(t, "backend add web-1 http://10.0.0.11:8080")
	file := filepath.Join(t.TempDir(), "lbnode.json")
	mustRun(t, "snapshot save "+file+" -stale")
	t.Setenv("LBNODE_ADMIN", "127.0.0.1:1") // it asks nobody
	for _, want := range []string{"1 pool, 1 backend, 0 routes", "backend default/web-1  http://10.0.0.11:8080", "pool default", "checksum"} {
		if got := mustRun(t, "snapshot inspect "+file); !strings.Contains(got, want) {
			t.Errorf("got %s, want %q in it", got, want)
		}
	}
	var s admin.Snapshot
	if err := json.Unmarshal([]byte(mustRun(t, "snapshot inspect -o json "+file)), &s); err != nil || len(s.Content.Pools) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"inspect ", "restore -yes "} {
		if _, err := lbnode(t, "snapshot "+command+file); err == nil || !strings.Contains(err.Error(), file) || exitCode(err) != 1 {
			t.Errorf("%sa damaged file: got %v, want an error that names it", command, err)
		}
	}
}

// Whatever field of a configuration differs, the change is shown; but health is none.
func TestChangesShowEveryField(t *testing.T) {
	newConfig := func() *state.Replace {
		return &state.Replace{
			Routes: []state.Route{{Host: "h", Path: "/", Pool: "p"}},
			Pools:  []state.Pool{{Name: "p", Backends: []*state.Backend{{ID: "1", Name: "b"}}}},
		}
	}
	if got := changesBetween(newConfig(), newConfig()); len(got) != 0 {
		t.Errorf("got %v for equal configurations", got)
	}
	count := len(leaves(reflect.ValueOf(newConfig()).Elem(), ""))
	for i := range count {
		changed := newConfig()
		leaf := leaves(reflect.ValueOf(changed).Elem(), "")[i]
		switch leaf.value.Kind() {
		case reflect.String:
			leaf.value.SetString("other")
		case reflect.Int, reflect.Int64:
			leaf.value.SetInt(77)
		case reflect.Map:
			leaf.value.Set(reflect.ValueOf(map[string]string{"X-Other": "other"}))
		case reflect.Bool:
			leaf.value.SetBool(true)
		default:
			t.Fatalf("%s is of kind %s, which this test cannot change", leaf.path, leaf.value.Kind())
		}
		health := slices.ContainsFunc([]string{".Health", ".Since", ".Reason", ".Falls"}, func(name string) bool { return strings.HasSuffix(leaf.path, name) }) ||
			strings.Contains(leaf.path, ".Agent.")
		if got := changesBetween(newConfig(), changed); (len(got) == 0) != health {
			t.Errorf("%s changed: got %v", leaf.path, got)
		}
	}
	if count < 20 {
		t.Errorf("got %d fields, want all", count)
	}
}

type leaf struct {
	path  string
	value reflect.Value
}

func leaves(v reflect.Value, path string) (all []leaf) {
	switch v.Kind() {
	case reflect.Pointer:
		return leaves(v.Elem(), path)
	case reflect.Struct:
		for i := range v.NumField() {
			all = append(all, leaves(v.Field(i), path+"."+v.Type().Field(i).Name)...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, leaves(v.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
		}
	default:
		all = append(all, leaf{path, v})
	}
	return all
}
