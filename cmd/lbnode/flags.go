package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/proxy"
	"lbnode/state"
)

const (
	defaultGossip = ":7946"
	defaultRaft   = ":7947"
	defaultAdmin  = "127.0.0.1:8404"
	defaultHTTP   = ":8080"
)

// nodeFlags are the settings of a node as they are given.
type nodeFlags struct {
	join           list
	node           string
	dataDir        string
	http           string
	bind           string
	raft           string
	advertise      string
	admin          string
	adminTokenFile string
	secret         string
	allowFrom      list
	trustedProxies list
	proxyProtocol  list
	maxConns       int
	maxPerClient   int
	accessLog      string
	insecure       bool
	nonVoter       bool
	leaveOnStop    bool
	lameDuck       time.Duration
	drain          time.Duration
	backends       list
	raftMultiplier int
	logLevel       slog.Level
	logFormat      string
	config         string
}

// list is a flag that may be repeated and whose values may be separated by commas.
type list []string

// String implements flag.Value.
func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *list) Set(value string) error {
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			return errors.New("holds an empty entry")
		}
		*l = append(*l, part)
	}
	return nil
}

func newFlagSet(f *nodeFlags) *flag.FlagSet {
	fs := flag.NewFlagSet("lbnode", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are printed once, by main
	fs.Var(&f.join, "join", "gossip addresses of all nodes, this one included, the same on every node: `a,b,c`; host, host:port or srv:_name")
	fs.StringVar(&f.node, "node", hostName(), "`name` of this node, shown to people")
	fs.StringVar(&f.dataDir, "data-dir", defaultDataDir(), "`directory` for the node's id, log and last view")
	fs.StringVar(&f.http, "http", defaultHTTP, "`address` for HTTP traffic")
	fs.StringVar(&f.bind, "bind", defaultGossip, "`address` for gossip, TCP and UDP")
	fs.StringVar(&f.raft, "raft", defaultRaft, "`address` for raft and calls between nodes, TCP")
	fs.StringVar(&f.advertise, "advertise", "", "`IP` address that other nodes reach this one at (default: the one that routes to the join target)")
	fs.StringVar(&f.admin, "admin", defaultAdmin, "`address` for the API, /cluster and metrics")
	fs.StringVar(&f.adminTokenFile, "admin-token-file", "", "`file` with the token that the admin address asks for")
	fs.StringVar(&f.secret, "secret", "", "`file` with the secret that all nodes share, from lbnode keygen; of several, a line each, the first is used and all are accepted; SIGHUP reads it again")
	fs.Var(&f.allowFrom, "allow-from", "`networks` from which other nodes may come, such as 10.0.0.0/24 (default: any)")
	fs.Var(&f.trustedProxies, "trusted-proxies", "`networks` of proxies whose X-Forwarded- fields, X-Real-IP and Forwarded are kept (default: none)")
	fs.Var(&f.proxyProtocol, "proxy-protocol", "`networks` from which connections begin with a PROXY protocol header, of version 1 or 2 (default: none)")
	fs.IntVar(&f.maxConns, "max-connections", 0, "most `connections` of clients at once; 0: as many as the limit on open files allows")
	fs.IntVar(&f.maxPerClient, "max-connections-per-client", 0, "most `connections` of one client address, or /64 of IPv6; 0: any")
	fs.StringVar(&f.accessLog, "access-log", "", "`file` that a line of JSON about each request is added to, - for the standard output; SIGUSR1 opens it anew (default: none)")
	fs.BoolVar(&f.insecure, "insecure", false, "allow listening off loopback without a secret or token")
	fs.BoolVar(&f.nonVoter, "non-voter", false, "never vote; serve traffic all the same")
	fs.DurationVar(&f.lameDuck, "lame-duck", defaultLameDuck, "how long to serve on when told to stop, while /readyz says no and clients are asked to go elsewhere")
	fs.DurationVar(&f.drain, "drain", defaultDrain, "how long requests under way may then take to end")
	fs.BoolVar(&f.leaveOnStop, "leave-on-stop", false, "leave the cluster for good when told to stop: for machines that do not come back")
	fs.Var(&f.backends, "backend", "`URL` of a backend for the default pool of a cluster that has no pool yet; repeatable")
	fs.IntVar(&f.raftMultiplier, "raft-multiplier", 1, "`factor` by which raft's timeouts are stretched, 1 to 10")
	fs.TextVar(&f.logLevel, "log-level", slog.LevelInfo, "least `level` that is logged: debug, info, warn or error")
	fs.StringVar(&f.logFormat, "log-format", "text", "`format` of the log: text or json")
	fs.StringVar(&f.config, "config", "", "`file` with settings of this node, a line each: name value")
	return fs
}

// parseFlags reads the flags, then the environment, then the file of -config. Its
// errors wrap errUsage.
func parseFlags(args []string) (*nodeFlags, error) {
	f := &nodeFlags{}
	fs := newFlagSet(f)
	if err := checkEnvironment(fs); err != nil {
		return nil, err
	}
	err := ff.Parse(fs, args,
		ff.WithEnvVarPrefix("LBNODE"),
		ff.WithConfigFileFlag("config"),
		ff.WithConfigFileParser(ff.PlainParser))
	if errors.Is(err, flag.ErrHelp) {
		return nil, err
	}
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "error parsing commandline arguments: ")
		return nil, fmt.Errorf("%w: %s%s; lbnode help lists the flags", errUsage, text, suggestFlag(err, fs))
	}
	if err := checkEmpty(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%w: unexpected %q after the flags; lists are separated by commas, without spaces", errUsage, fs.Arg(0))
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return nil, fmt.Errorf("%w: -log-format must be text or json, not %q", errUsage, f.logFormat)
	}
	if f.lameDuck < 0 || f.drain < 0 {
		return nil, fmt.Errorf("%w: -lame-duck and -drain are times such as 5s, not below 0", errUsage)
	}
	f.keepToLoopback()
	return f, nil
}

// checkEnvironment refuses a variable that looks like a misspelt twin of a flag.
// Others pass: a platform may set some of its own, such as LBNODE_SERVICE_HOST.
func checkEnvironment(fs *flag.FlagSet) error {
	var twins []string
	fs.VisitAll(func(f *flag.Flag) { twins = append(twins, twinOf(f)) })
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(twins, name) {
			continue
		}
		if near := admin.Nearest(name, twins); near != "" {
			return fmt.Errorf("%w: unknown environment variable %s (did you mean %s?)", errUsage, name, near)
		}
	}
	return nil
}

const envPrefix = "LBNODE_"

// twinOf is the environment variable that stands for a flag.
func twinOf(f *flag.Flag) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// checkEmpty refuses a variable that is set to nothing where the flag could not be, or would
// mean something else than none: passed over, LBNODE_JOIN would have a node found a cluster of
// its own, and LBNODE_ALLOW_FROM let others in from anywhere. A flag in args counts before it.
func checkEmpty(args []string) (err error) {
	fs := newFlagSet(&nodeFlags{})
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	fs.VisitAll(func(f *flag.Flag) {
		value, set := os.LookupEnv(twinOf(f))
		if !set || value != "" || given[f.Name] || f.DefValue == "" && f.Value.Set("") == nil {
			return
		}
		err = cmp.Or(err, fmt.Errorf("%w: %s is set to nothing: give it what -%s takes, or unset it", errUsage, twinOf(f), f.Name))
	})
	return err
}

// keepToLoopback makes a bare `lbnode` safe and easy: without peers and without
// protection, nothing but traffic is reachable from other machines.
func (f *nodeFlags) keepToLoopback() {
	if f.secret != "" || f.insecure || len(f.join) > 0 {
		return
	}
	if f.bind == defaultGossip {
		f.bind = "127.0.0.1" + defaultGossip
	}
	if f.raft == defaultRaft {
		f.raft = "127.0.0.1" + defaultRaft
	}
}

var undefinedFlag = regexp.MustCompile(`(?:not defined: -|flag ")([A-Za-z0-9-]+)`)

// suggestFlag finds the flag that was meant by an unknown one.
func suggestFlag(err error, fs *flag.FlagSet) string {
	match := undefinedFlag.FindStringSubmatch(err.Error())
	if match == nil {
		return ""
	}
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return suggest(match[1], names)
}

// clusterConfig turns the flags into the settings of package cluster.
func (f *nodeFlags) clusterConfig(log *slog.Logger) (cluster.Config, error) {
	seed, err := seedBackends(f.backends)
	if err != nil {
		return cluster.Config{}, err
	}
	if _, _, err := net.SplitHostPort(f.http); err != nil {
		return cluster.Config{}, fmt.Errorf("%w: -http %q is not an address such as :8080: %w", errUsage, f.http, err)
	}
	var secrets [][]byte
	if f.secret != "" {
		if secrets, err = cluster.ReadSecrets(f.secret); err != nil {
			return cluster.Config{}, err
		}
	}
	cfg := cluster.Config{
		Name:           f.node,
		Version:        version(),
		DataDir:        f.dataDir,
		Join:           f.join,
		Bind:           f.bind,
		Raft:           f.raft,
		Advertise:      f.advertise,
		Secrets:        secrets,
		AllowFrom:      f.allowFrom,
		Insecure:       f.insecure,
		NonVoter:       f.nonVoter,
		Seed:           seed,
		RaftMultiplier: f.raftMultiplier,
		Log:            log,
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("%w: %w", errUsage, err)
	}
	return cfg, nil
}

// proxyConfig turns the flags into the settings of package proxy.
func (f *nodeFlags) proxyConfig() (cfg proxy.Config, err error) {
	if f.maxConns < 0 || f.maxPerClient < 0 {
		return cfg, fmt.Errorf("%w: -max-connections and -max-connections-per-client cannot be below 0", errUsage)
	}
	cfg.MaxConnections, cfg.MaxConnectionsPerClient = f.maxConns, f.maxPerClient
	if cfg.TrustedProxies, err = cluster.ParseNetworks("trusted-proxies", f.trustedProxies); err != nil {
		return cfg, fmt.Errorf("%w: %w", errUsage, err)
	}
	if cfg.ProxyProtocol, err = cluster.ParseNetworks("proxy-protocol", f.proxyProtocol); err != nil {
		return cfg, fmt.Errorf("%w: %w", errUsage, err)
	}
	return cfg, nil
}

// seedBackends names the backends of -backend in their order.
func seedBackends(urls []string) ([]state.Backend, error) {
	var backends []state.Backend
	for i, raw := range urls {
		b, err := admin.BackendSpec{Name: fmt.Sprintf("backend-%d", i+1), URL: raw}.Backend()
		if err != nil {
			return nil, fmt.Errorf("%w: -backend %s", errUsage, err.Message)
		}
		if slices.ContainsFunc(backends, func(other state.Backend) bool { return other.Addr() == b.Addr() }) {
			return nil, fmt.Errorf("%w: -backend %s is given twice", errUsage, raw)
		}
		backends = append(backends, b)
	}
	return backends, nil
}

// adminToken reads the token for the admin address. Off loopback there must be
// one, or -insecure.
func (f *nodeFlags) adminToken() (string, error) {
	host, _, err := net.SplitHostPort(f.admin)
	if err != nil {
		return "", fmt.Errorf("%w: -admin %q is not an address such as 127.0.0.1:8404: %w", errUsage, f.admin, err)
	}
	if f.adminTokenFile != "" {
		return readToken(f.adminTokenFile)
	}
	ip := net.ParseIP(host)
	if f.insecure || host == "localhost" || ip != nil && ip.IsLoopback() {
		return "", nil
	}
	return "", fmt.Errorf("%w: -admin %s is reachable from other machines and asks for no token: give -admin-token-file, or say -insecure", errUsage, f.admin)
}

// maxTokenFile bounds what is read of the file of a token.
const maxTokenFile = 4 << 10

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the admin token: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("the admin token in %s can be read by every user of this machine: chmod 600 %[1]s", path)
	}
	text, err := cluster.ReadText(path, maxTokenFile)
	if err != nil {
		return "", fmt.Errorf("cannot read the admin token: %w", err)
	}
	token := strings.TrimSpace(text)
	if len(token) < 16 {
		return "", fmt.Errorf("the admin token in %s has %d characters, fewer than 16: lbnode keygen > %[1]s makes a good one", path, len(token))
	}
	return token, nil
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "lbnode"
	}
	return name
}

// defaultDataDir is /var/lib/lbnode for root, else in the user's state directory
// (XDG Base Directory Specification).
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/lbnode"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lbnode")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "lbnode")
}
