package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

var (
	// errUsage: the command line is wrong; exit code 64, the EX_USAGE of sysexits.h.
	errUsage = errors.New("usage")
	// errDegraded: the answer is there, but the cluster is not well; exit code 3.
	errDegraded = errors.New("degraded")
)

// command is one word after lbnode.
type command struct {
	name    string
	args    string
	summary string
	run     func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// commands are all that lbnode can be told to do, in the order of the help.
func commands() []command {
	return []command{
		{"demo", "[-kill NAME | -start NAME]", "run three nodes and three backends on this machine", runDemo},
		{"status", "", "show the cluster, its pools and what is wrong", runStatus},
		{"members", "", "list the nodes", runMembers},
		{"backend", "ls|add|rm|set", "list, add, remove or change backends", runBackend},
		{"route", "ls|add|rm", "list, add or remove routes", runRoute},
		{"snapshot", "save|restore|inspect", "keep the configuration in a file, or bring it back", runSnapshot},
		{"recover", "", "make a new cluster of this stopped node's data when quorum is lost for good", runRecover},
		{"raft", "peers|remove", "list the members of Raft, or remove a dead one at once", runRaft},
		{"leave", "", "take the node out of the cluster for good and stop it", runLeave},
		{"keygen", "", "print a new secret for -secret", runKeygen},
		{"version", "", "print the version", runVersion},
	}
}

// run does what the command line says. Its errors wrap errUsage or errDegraded
// where these apply.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") && !isHelp(args[0]) {
		return runNode(ctx, args, stdout, stderr)
	}
	if isHelp(args[0]) || args[0] == "help" {
		return printHelp(stdout)
	}
	names := []string{"help"}
	for _, c := range commands() {
		if c.name == args[0] {
			return quietHelp(c.run(ctx, args[1:], stdout, stderr))
		}
		names = append(names, c.name)
	}
	return fmt.Errorf("%w: unknown command %q%s; lbnode help lists them", errUsage, args[0], suggest(args[0], names))
}

func isHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

// quietHelp turns the error of a flag set that printed its help into success.
func quietHelp(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func printHelp(stdout io.Writer) error {
	fmt.Fprint(stdout, "lbnode is a load balancer that is its own cluster.\n\n"+
		"  lbnode [flags]      run a node\n\nCommands:\n")
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(table, "  lbnode %s %s\t%s\n", c.name, c.args, c.summary)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprint(stdout, "\nFlags of a node, each also as LBNODE_NAME in the environment:\n")
	flags := newFlagSet(&nodeFlags{})
	flags.SetOutput(stdout)
	flags.PrintDefaults()
	return nil
}

// exitCode is what the process ends with: 0, 1 failed, 3 degraded, 64 usage. Go's runtime
// ends a process that crashes with 2, so that nothing else may mean that.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return 64
	case errors.Is(err, errDegraded):
		return 3
	}
	return 1
}

// oneLine gives an error the one line that it is allowed.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
