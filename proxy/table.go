package proxy

import (
	"bytes"
	"cmp"
	"net/url"
	"slices"
	"strings"

	"lbnode/state"
)

// table is what a request reads: one view's routes and pools, made ready. It never
// changes; a change of the view makes a new one.
type table struct {
	pools map[string]*pool
	hosts map[string][]route // by host, "" for any; longest path first
}

type route struct {
	path string // unescaped, without a slash at the end
	pool *pool
}

// newTable makes the table of the routes, or, where there are none, one that sends
// everything to the default pool.
func newTable(routes []state.Route, pools map[string]*pool) *table {
	t := &table{pools: pools, hosts: map[string][]route{}}
	if len(routes) == 0 {
		routes = []state.Route{{Path: "/", Pool: state.DefaultPool}}
	}
	for _, r := range routes {
		if pool := pools[r.Pool]; pool != nil {
			host := plainHost(r.Host)
			t.hosts[host] = append(t.hosts[host], route{plainPath(r.Path), pool})
		}
	}
	for _, list := range t.hosts {
		slices.SortStableFunc(list, func(a, b route) int { return cmp.Compare(len(b.path), len(a.path)) })
	}
	return t
}

// pool returns the pool of that name, nil if there is none or no table.
func (t *table) pool(name string) *pool {
	if t == nil {
		return nil
	}
	return t.pools[name]
}

// route finds the pool for the value of a Host field and a path: a route for the host
// goes before one for any host, then the longest path wins. Both may be written with
// escapes, which must not lead past a route. It returns nil if no route covers them.
func (t *table) route(host, path []byte) *pool {
	path, host = withoutEscapes(path), withoutEscapes(withoutPort(host))
	var room [255]byte
	if name := appendLower(room[:0], bytes.TrimSuffix(host, []byte("."))); len(name) > 0 {
		if pool := longest(t.hosts[string(name)], path); pool != nil {
			return pool
		}
	}
	return longest(t.hosts[""], path)
}

func longest(routes []route, path []byte) *pool {
	for _, r := range routes {
		n := len(r.path)
		if n <= len(path) && string(path[:n]) == r.path && (n == len(path) || path[n] == '/') {
			return r.pool
		}
	}
	return nil
}

func appendLower(out, name []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		out = append(out, c)
	}
	return out
}

// plainHost gives the one form of a host name that may be written in several.
func plainHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// withoutPort gives the host of host:port, and of [host]:port the host without the
// brackets.
func withoutPort(host []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		host, _, _ = bytes.Cut(host[1:], []byte("]"))
		return host
	}
	host, _, _ = bytes.Cut(host, []byte(":"))
	return host
}

// plainPath gives the form of a route's path that requests' paths are compared
// with. A path that cannot be unescaped is taken as it is.
func plainPath(path string) string { return strings.TrimRight(unescaped(path), "/") }

func withoutEscapes(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 {
		return b
	}
	return []byte(unescaped(string(b)))
}

func unescaped(path string) string {
	if plain, err := url.PathUnescape(path); err == nil {
		return plain
	}
	return path
}
