package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// runVersion prints what this binary is.
func runVersion(_ context.Context, args []string, stdout, _ io.Writer) error {
	c := newInvocation("version", "", stdout)
	if _, err := c.parse(args, 0, 0); err != nil {
		return err
	}
	type build struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}
	b := build{"lbnode", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
	return c.print(b, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s %s %s/%s\n", b.Name, b.Version, b.Go, b.OS, b.Arch)
	})
}

// version is that of the module, as the go command stamped it into the binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return cmp.Or(info.Main.Version, "(devel)")
}
