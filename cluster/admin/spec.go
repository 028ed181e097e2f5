package admin

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"lbnode/cluster"
	"lbnode/state"
)

func invalid(field, format string, args ...any) *state.Error {
	return &state.Error{Code: state.Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// pool gives the pool that the spec asks for, its backends with new ids.
func (p PoolSpec) pool() (state.Pool, error) {
	pool := state.Pool{Name: p.Name, Settings: p.Settings}
	for i, spec := range p.Backends {
		b, err := spec.Backend()
		if err != nil {
			err.Field = fmt.Sprintf("backends[%d].%s", i, err.Field)
			return state.Pool{}, err
		}
		pool.Backends = append(pool.Backends, &b)
	}
	return pool, nil
}

// Backend gives the backend that the spec asks for, with an id of its own. The
// error names the field that is at fault.
func (b BackendSpec) Backend() (state.Backend, *state.Error) {
	backend, err := b.patch()
	if err != nil {
		return state.Backend{}, err
	}
	if backend.Host == "" {
		return state.Backend{}, invalid("url", "is missing; give a url such as http://10.0.0.11:8080, or host and port")
	}
	if backend.Port == 0 {
		backend.Port = defaultPort(backend.Protocol)
	}
	backend.ID = cluster.NewID()
	return backend, nil
}

// patch gives the parts of a backend that the spec names.
func (b BackendSpec) patch() (state.Backend, *state.Error) {
	backend := state.Backend{Name: b.Name, Protocol: b.Protocol, Host: b.Host, Port: b.Port, Weight: b.Weight, Admin: b.Admin}
	backend.Backup = b.Backup != nil && *b.Backup
	if b.URL != "" {
		if err := parseURL(b.URL, &backend); err != nil {
			return state.Backend{}, err
		}
		if !sameOrAbsent(b.Protocol, backend.Protocol) || !sameOrAbsent(plainHost(b.Host), plainHost(backend.Host)) || !sameOrAbsent(b.Port, backend.Port) {
			return state.Backend{}, invalid("url", "stands for protocol, host and port, which say something else; give it or them")
		}
	}
	backend.Host = plainHost(backend.Host)
	return backend, nil
}

func sameOrAbsent[T comparable](given, want T) bool {
	var absent T
	return given == absent || given == want
}

// parseURL takes protocol, host and port out of a backend's url. A lone "/" as
// path is let pass: it means the same as none.
func parseURL(raw string, b *state.Backend) *state.Error {
	if strings.Contains(raw, "@") { // an answer must not repeat a password
		return invalid("url", "must hold no user or password")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return invalid("url", "must be like http://10.0.0.11:8080, not %q", raw)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return invalid("url", "must begin with http:// or https://, not %q", raw)
	case u.Path != "" && u.Path != "/":
		return invalid("url", "must have no path, not %q: requests keep their own", raw)
	case strings.ContainsAny(raw, "?#"):
		return invalid("url", "must have no query and no fragment, not %q", raw)
	case u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return invalid("url", "must name a host, and a port after any colon, not %q", raw)
	}
	b.Protocol, b.Host, b.Port = u.Scheme, u.Hostname(), defaultPort(u.Scheme)
	if u.Port() == "" {
		return nil
	}
	if b.Port, err = strconv.Atoi(u.Port()); err != nil || b.Port < 1 || b.Port > 65535 {
		return invalid("url", "must have a port of 1 to 65535, not %q", raw)
	}
	return nil
}

// plainHost gives one form to each host, so that equal hosts are seen to be equal.
func plainHost(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String()
	}
	return strings.ToLower(host)
}

func defaultPort(protocol string) int {
	if protocol == "https" {
		return 443
	}
	return 80
}
