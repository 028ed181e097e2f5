package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lbnode/proxy"
)

// What protects a node's traffic is set by flags, by the environment or by a file.
func TestFlagsOfTraffic(t *testing.T) {
	prefixes := func(all ...string) (networks []netip.Prefix) {
		for _, s := range all {
			networks = append(networks, netip.MustParsePrefix(s))
		}
		return networks
	}
	want := proxy.Config{
		TrustedProxies: prefixes("10.1.0.0/16", "192.0.2.1/32", "fd00::/8"),
		ProxyProtocol:  prefixes("10.2.0.0/16"),
		MaxConnections: 1000, MaxConnectionsPerClient: 10,
	}
	file := filepath.Join(t.TempDir(), "lbnode.conf")
	text := "trusted-proxies 10.1.0.0/16,192.0.2.1,fd00::/8\nproxy-protocol ::ffff:10.2.0.0/112\nmax-connections 1000\nmax-connections-per-client 10\naccess-log -\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args        []string
		environment map[string]string
	}{
		"flags": {args: []string{
			"-trusted-proxies", "10.1.0.0/16,192.0.2.1", "-trusted-proxies", "fd00::/8", "-proxy-protocol", "10.2.0.0/16",
			"-max-connections", "1000", "-max-connections-per-client", "10", "-access-log", "-",
		}},
		"environment": {environment: map[string]string{
			"LBNODE_TRUSTED_PROXIES": "10.1.0.0/16,192.0.2.1,fd00::/8", "LBNODE_PROXY_PROTOCOL": "10.2.0.0/16",
			"LBNODE_MAX_CONNECTIONS": "1000", "LBNODE_MAX_CONNECTIONS_PER_CLIENT": "10", "LBNODE_ACCESS_LOG": "-",
		}},
		"file": {args: []string{"-config", file}},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range test.environment {
				t.Setenv(key, value)
			}
			flags, err := parseFlags(test.args)
			if err != nil {
				t.Fatal(err)
			}
			got, err := flags.proxyConfig()
			if err != nil || !slices.Equal(got.TrustedProxies, want.TrustedProxies) || !slices.Equal(got.ProxyProtocol, want.ProxyProtocol) ||
				got.MaxConnections != want.MaxConnections || got.MaxConnectionsPerClient != want.MaxConnectionsPerClient || flags.accessLog != "-" {
				t.Errorf("got %+v and the access log %q, %v; want %+v and -", got, flags.accessLog, err, want)
			}
		})
	}
}

func TestFlagsOfTrafficThatAreWrong(t *testing.T) {
	for _, args := range [][]string{
		{"-trusted-proxies", "any"}, {"-trusted-proxies", "10.0.0.0/33"}, {"-proxy-protocol", "10.0.0.0:80"}, {"-max-connections", "-1"}, {"-max-connections-per-client", "-5"},
	} {
		flags, err := parseFlags(args)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := flags.proxyConfig(); !errors.Is(err, errUsage) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
}
