package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"lbnode/cluster/admin"
)

// invocation is one use of a command that talks to a node: its flags, and where its
// answer goes.
type invocation struct {
	flags     *flag.FlagSet
	synopsis  string
	admin     string
	tokenFile string
	output    string
	stdout    io.Writer
}

// newInvocation begins the command of that name, which takes args after it.
func newInvocation(name, args string, stdout io.Writer) *invocation {
	c := &invocation{
		flags:    flag.NewFlagSet(name, flag.ContinueOnError),
		synopsis: strings.TrimSpace("lbnode " + name + " " + args),
		stdout:   stdout,
	}
	c.flags.SetOutput(io.Discard) // errors are printed once, by main
	c.flags.StringVar(&c.output, "o", "table", "print a `table` or json")
	return c
}

// newNodeInvocation begins a command that asks a node.
func newNodeInvocation(name, args string, stdout io.Writer) *invocation {
	c := newInvocation(name, args, stdout)
	c.flags.StringVar(&c.admin, "admin", cmp.Or(os.Getenv("LBNODE_ADMIN"), defaultAdmin), "admin `address` of the node to ask")
	c.flags.StringVar(&c.tokenFile, "admin-token-file", os.Getenv("LBNODE_ADMIN_TOKEN_FILE"), "`file` with the token that the admin address asks for")
	return c
}

// parse reads args, in which flags may stand before, between and after the
// words, and returns the words: from least to most of them. Its errors wrap
// errUsage, or flag.ErrHelp once the help is printed.
func (c *invocation) parse(args []string, least, most int) ([]string, error) {
	words, err := c.words(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.printHelp()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %s%s; %s -h lists the flags", errUsage, err, suggestFlag(err, c.flags), c.name())
	case c.output != "table" && c.output != "json":
		return nil, fmt.Errorf("%w: -o must be table or json, not %q", errUsage, c.output)
	case len(words) < least:
		return nil, fmt.Errorf("%w: something is missing: %s", errUsage, c.synopsis)
	case len(words) > most:
		return nil, fmt.Errorf("%w: unexpected %q: %s", errUsage, words[most], c.synopsis)
	}
	return words, nil
}

func (c *invocation) words(args []string) ([]string, error) {
	var words []string
	for {
		if err := c.flags.Parse(args); err != nil {
			return nil, err
		}
		rest := c.flags.Args()
		if len(rest) == 0 {
			return words, nil
		}
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			return append(words, rest...), nil
		}
		words, args = append(words, rest[0]), rest[1:]
	}
}

func (c *invocation) name() string { return "lbnode " + c.flags.Name() }

func (c *invocation) printHelp() {
	fmt.Fprintf(c.stdout, "usage: %s\n\n", c.synopsis)
	c.flags.SetOutput(c.stdout)
	c.flags.PrintDefaults()
}

// given says whether a flag was set.
func (c *invocation) given(name string) bool {
	found := false
	c.flags.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func (c *invocation) client() (*admin.Client, error) {
	if plain := strings.TrimSuffix(strings.TrimPrefix(c.admin, "http://"), "/"); strings.Contains(plain, "/") {
		return nil, fmt.Errorf("%w: -admin %q is not an address such as 127.0.0.1:8404", errUsage, c.admin)
	}
	if c.tokenFile == "" {
		return admin.NewClient(c.admin, ""), nil
	}
	token, err := readToken(c.tokenFile)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(c.admin, token), nil
}

// runOneOf runs that of subcommands which args names first.
func runOneOf(ctx context.Context, name string, subcommands []command, args []string, stdout, stderr io.Writer) error {
	var names []string
	for _, sub := range subcommands {
		if len(args) > 0 && args[0] == sub.name {
			return sub.run(ctx, args[1:], stdout, stderr)
		}
		names = append(names, sub.name)
	}
	if len(args) == 0 {
		return fmt.Errorf("%w: lbnode %s needs one of %s", errUsage, name, strings.Join(names, ", "))
	}
	if !isHelp(args[0]) {
		return fmt.Errorf("%w: unknown command \"%s %s\"%s; there are %s", errUsage, name, args[0], suggest(args[0], names), strings.Join(names, ", "))
	}
	for _, sub := range subcommands {
		fmt.Fprintf(stdout, "lbnode %s %s %s\n    %s\n", name, sub.name, sub.args, sub.summary)
	}
	return nil
}
