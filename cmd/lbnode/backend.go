package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"lbnode/cluster/admin"
	"lbnode/state"
)

const (
	backendAddArgs = "NAME URL [-pool POOL] [-weight N] [-backup]"
	backendSetArgs = "NAME [ready|drain|maint] [-wait [-timeout 5m]] [-weight N] [-backup[=false]] [-url URL] [-pool POOL]"
)

func runBackend(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runOneOf(ctx, "backend", []command{
		{"ls", "[-pool POOL]", "list the backends of all pools, or of one", runBackendList},
		{"add", backendAddArgs, "add a backend", runBackendAdd},
		{"rm", "NAME [-pool POOL]", "remove a backend", runBackendRemove},
		{"set", backendSetArgs, "change a backend", runBackendSet},
	}, args, stdout, stderr)
}

// runBackendList prints the pools with their backends or, with -pool, the
// backends of that pool.
func runBackendList(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("backend ls", "[-pool POOL]", stdout)
	pool := c.flags.String("pool", "", "only the backends of this `pool`")
	if _, err := c.parse(args, 0, 0); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if *pool == "" {
		pools, err := client.Pools(ctx)
		if err != nil {
			return err
		}
		return c.print(pools, func(w io.Writer) { writeBackends(w, explained(ctx, client, pools...)...) })
	}
	backends, err := client.Backends(ctx, *pool)
	if err != nil {
		return err
	}
	return c.print(backends, func(w io.Writer) {
		writeBackends(w, explained(ctx, client, admin.Pool{Name: *pool, Backends: backends})...)
	})
}

// explained gives for each unhealthy backend the reason of now, as far as the nodes tell
// it: what the cluster agreed on may be long ago.
func explained(ctx context.Context, client *admin.Client, pools ...admin.Pool) []admin.Pool {
	view, err := client.Cluster(ctx)
	if err != nil {
		return pools // with the reasons that were agreed on
	}
	for _, p := range pools {
		for i := range p.Backends {
			b := &p.Backends[i]
			if now := backendIn(view, p.Name, b.Name); now != nil && now.Health == state.Unhealthy && b.Health == state.Unhealthy {
				b.Reason = now.Why()
			}
		}
	}
	return pools
}

func writeBackends(w io.Writer, pools ...admin.Pool) {
	fmt.Fprintln(w, "POOL\tNAME\tURL\tWEIGHT\tADMIN\tHEALTH\tSINCE\tREASON")
	for _, p := range pools {
		for _, b := range p.Backends {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, b.Name, b.URL,
				admin.WithAgent(admin.Share(b.Weight, b.Backup), b.AgentWeight), admin.WithAgent(b.Admin, string(b.AgentAdmin)), b.Health, b.Since, b.Reason)
		}
	}
}

func runBackendAdd(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("backend add", backendAddArgs, stdout)
	pool := c.flags.String("pool", state.DefaultPool, "`pool` to add it to")
	weight, backup := weightFlag(c.flags), backupFlag(c.flags)
	words, err := c.parse(args, 2, 2)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	b, err := client.AddBackend(ctx, *pool, admin.BackendSpec{Name: words[0], URL: words[1], Weight: *weight, Backup: *backup})
	if err != nil {
		return changeFailed(err, fmt.Sprintf("add backend %q to pool %q", words[0], *pool), "lbnode backend ls")
	}
	return c.print(b, func(w io.Writer) {
		fmt.Fprintf(w, "added %s %s to pool %s; it gets traffic once its first probe has passed\n", b.Name, b.URL, *pool)
	})
}

func runBackendRemove(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("backend rm", "NAME [-pool POOL]", stdout)
	pool := c.flags.String("pool", "", "`pool` to remove it from; needed only if several have a backend of that name")
	words, err := c.parse(args, 1, 1)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if *pool, err = poolWith(ctx, client, words[0], *pool); err != nil {
		return err
	}
	if err := client.RemoveBackend(ctx, *pool, words[0]); err != nil {
		return changeFailed(err, fmt.Sprintf("remove backend %q from pool %q", words[0], *pool), "lbnode backend ls")
	}
	removed := map[string]string{"pool": *pool, "name": words[0]}
	return c.print(removed, func(w io.Writer) { fmt.Fprintf(w, "removed %s from pool %s\n", words[0], *pool) })
}

func runBackendSet(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := newNodeInvocation("backend set", backendSetArgs, stdout)
	pool := c.flags.String("pool", "", "`pool` that it is in; needed only if several have a backend of that name")
	weight, backup := weightFlag(c.flags), backupFlag(c.flags)
	url := c.flags.String("url", "", "new `URL`")
	var waiting waitFlags
	waiting.add(c)
	words, err := c.parse(args, 1, 2)
	if err != nil {
		return err
	}
	change := admin.BackendSpec{Weight: *weight, Backup: *backup, URL: *url}
	if change.Admin, err = adminState(words[1:]); err != nil {
		return err
	}
	if c.given("url") && *url == "" || change == (admin.BackendSpec{}) {
		return fmt.Errorf("%w: nothing to change: %s", errUsage, c.synopsis)
	}
	if err := waiting.check(c, change); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if *pool, err = poolWith(ctx, client, words[0], *pool); err != nil {
		return err
	}
	b, index, err := client.UpdateBackend(ctx, *pool, words[0], change)
	if err != nil {
		return changeFailed(err, fmt.Sprintf("change backend %q of pool %q", words[0], *pool), "lbnode backend ls")
	}
	err = c.print(b, func(w io.Writer) {
		writeBackends(w, admin.Pool{Name: *pool, Backends: []admin.Backend{*b}})
	})
	if err != nil || !waiting.wait {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waiting.timeout)
	defer cancel()
	return newDrainage(client, *pool, words[0], index, stderr).wait(ctx)
}

// weightFlag adds -weight; its value is 0 until it is given.
func weightFlag(flags *flag.FlagSet) *int {
	weight := 0
	flags.Func("weight", "`share` of the traffic beside the other backends, 1 to 256", func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 256 {
			return errors.New("must be 1 to 256; to stop traffic: lbnode backend set NAME drain")
		}
		weight = n
		return nil
	})
	return &weight
}

// backupFlag adds -backup; its value is nil until it is given.
func backupFlag(flags *flag.FlagSet) **bool {
	var backup *bool
	flags.BoolFunc("backup", "give it traffic only while no other backend of the pool is eligible", func(text string) error {
		given, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("must be true or false")
		}
		backup = &given
		return nil
	})
	return &backup
}

// adminState reads the admin state in words, of which there is at most one.
func adminState(words []string) (state.Admin, error) {
	if len(words) == 0 {
		return "", nil
	}
	known := []string{string(state.Ready), string(state.Drain), string(state.Maint)}
	if !slices.Contains(known, words[0]) {
		return "", fmt.Errorf("%w: unknown admin state %q%s; there are %s", errUsage, words[0], suggest(words[0], known), strings.Join(known, ", "))
	}
	return state.Admin(words[0]), nil
}

// poolWith returns pool or, if that is empty, the only pool that has a backend
// of that name.
func poolWith(ctx context.Context, client *admin.Client, name, pool string) (string, error) {
	if pool != "" {
		return pool, nil
	}
	pools, err := client.Pools(ctx)
	if err != nil {
		return "", err
	}
	var having, known []string
	for _, p := range pools {
		for _, b := range p.Backends {
			known = append(known, b.Name)
			if b.Name == name {
				having = append(having, p.Name)
			}
		}
	}
	switch len(having) {
	case 0:
		return "", fmt.Errorf("there is no backend %q%s; lbnode backend ls lists them", name, suggest(name, known))
	case 1:
		return having[0], nil
	}
	return "", fmt.Errorf("backend %q is in the pools %s: say which with -pool", name, strings.Join(having, ", "))
}
