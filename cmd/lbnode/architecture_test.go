package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport says, for each part of the tree, which of our own packages it may
// depend on, tests aside. A trailing slash stands for all below.
var mayImport = []struct{ part, own string }{
	{"state", ""},
	{"proxy/", "state proxy/"},
	{"cluster/", "state cluster/"},
	{"cmd/", "state proxy/ cluster/"},
}

func TestImportRules(t *testing.T) {
	for pkg, deps := range ownDeps(t) {
		allowed, found := "", false
		for _, rule := range mayImport {
			if covers(rule.part, pkg) {
				allowed, found = rule.own, true
			}
		}
		if !found {
			t.Errorf("package %s is in no part of the tree that the rules know", pkg)
		}
		for _, dep := range deps {
			if !slices.ContainsFunc(strings.Fields(allowed), func(part string) bool { return covers(part, dep) }) {
				t.Errorf("%s depends on %s; it may depend on: %s", pkg, dep, allowed)
			}
		}
	}
}

func TestStateStandsOnStandardLibrary(t *testing.T) {
	for _, dep := range strings.Fields(goList(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "lbnode/state")) {
		if dep != "lbnode/state" {
			t.Errorf("state depends on %s, which is not in the standard library", dep)
		}
	}
	for _, dep := range strings.Fields(goList(t, "-f", `{{join .Imports " "}}`, "lbnode/state")) {
		if slices.Contains([]string{"net/http", "os", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand"}, dep) {
			t.Errorf("state imports %s: it does no I/O, logs nothing and draws no random number", dep)
		}
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	want := strings.Fields("cmd cluster proxy state deploy testdata go.mod go.sum Vagrantfile README.md")
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(want, e.Name()) && e.Name() != "lbnode" {
			t.Errorf("%s stands at the top level; only these do: %v", e.Name(), want)
		}
	}
}

// Each direct dependency has its reason in the README.
func TestDependenciesHaveReasons(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range strings.Fields(goList(t, "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all")) {
		if !strings.Contains(string(readme), "`"+module+"`") {
			t.Errorf("README.md gives no reason for the dependency `%s`", module)
		}
	}
}

// ownDeps returns our packages and those of ours that each depends on, by path
// inside the module.
func ownDeps(t *testing.T) map[string][]string {
	deps := map[string][]string{}
	for line := range strings.Lines(goList(t, "-f", `{{.ImportPath}} {{join .Deps " "}}`, "lbnode/...")) {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], "lbnode/")
		deps[pkg] = nil
		for _, dep := range words[1:] {
			if own, ok := strings.CutPrefix(dep, "lbnode/"); ok {
				deps[pkg] = append(deps[pkg], own)
			}
		}
	}
	return deps
}

func covers(part, pkg string) bool {
	folder, all := strings.CutSuffix(part, "/")
	return pkg == folder || all && strings.HasPrefix(pkg, folder+"/")
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return string(out)
}
