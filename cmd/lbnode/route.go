package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"lbnode/cluster/admin"
)

// matchHelp explains the word that names a route.
const matchHelp = "HOST, HOST/PATH or /PATH"

func runRoute(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runOneOf(ctx, "route", []command{
		{"ls", "", "list the routes", runRouteList},
		{"add", "MATCH POOL", "send what matches (" + matchHelp + ") to a pool", runRouteAdd},
		{"rm", "MATCH", "remove the route for " + matchHelp, runRouteRemove},
	}, args, stdout, stderr)
}

func runRouteList(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("route ls", "", stdout)
	if _, err := c.parse(args, 0, 0); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	routes, err := client.Routes(ctx)
	if err != nil {
		return err
	}
	return c.print(routes, func(w io.Writer) {
		fmt.Fprintln(w, "HOST\tPATH\tPOOL")
		for _, r := range routes {
			fmt.Fprintf(w, "%s\t%s\t%s\n", cmp.Or(r.Host, "(any)"), r.Path, r.Pool)
		}
	})
}

func runRouteAdd(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("route add", "MATCH POOL, where MATCH is "+matchHelp, stdout)
	words, err := c.parse(args, 2, 2)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	host, path := splitMatch(words[0])
	route, err := client.PutRoute(ctx, admin.Route{Host: host, Path: path, Pool: words[1]})
	if err != nil {
		return changeFailed(err, fmt.Sprintf("send %q to pool %q", words[0], words[1]), "lbnode route ls")
	}
	rest, err := noRest(ctx, client)
	if err != nil {
		return err
	}
	return c.print(route, func(w io.Writer) {
		fmt.Fprintf(w, "%s%s goes to pool %s%s\n", route.Host, route.Path, route.Pool, rest)
	})
}

// noRest says, with the first routes, that what matches none goes nowhere now.
func noRest(ctx context.Context, client *admin.Client) (string, error) {
	routes, err := client.Routes(ctx)
	all := slices.ContainsFunc(routes, func(r admin.Route) bool { return r.Host == "" && r.Path == "/" })
	if err != nil || all {
		return "", err
	}
	return "\nother requests get 404 while there is a route but none for them: lbnode route add / POOL sends them somewhere, too", nil
}

func runRouteRemove(ctx context.Context, args []string, stdout, _ io.Writer) error {
	c := newNodeInvocation("route rm", "MATCH, which is "+matchHelp, stdout)
	words, err := c.parse(args, 1, 1)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	host, path := splitMatch(words[0])
	if err := client.RemoveRoute(ctx, host, path); err != nil {
		return changeFailed(err, fmt.Sprintf("remove the route %q", words[0]), "lbnode route ls")
	}
	removed := map[string]string{"host": host, "path": path}
	return c.print(removed, func(w io.Writer) { fmt.Fprintf(w, "removed the route for %s%s\n", host, path) })
}

// splitMatch takes "example.com/api" apart; without a path it is "/".
func splitMatch(match string) (host, path string) {
	host, path, _ = strings.Cut(match, "/")
	return host, "/" + path
}
