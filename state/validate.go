package state

import (
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Names are used in URLs, metrics and command lines, so they are kept to what
// needs no quoting in any of them.
var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)
	// numericEnd is of hosts that some resolvers take for IPv4 addresses in an odd
	// spelling, such as 127.1 or 0x7f000001.
	numericEnd = regexp.MustCompile(`(^|\.)([0-9]+|0[xX][0-9A-Fa-f]*)\.?$`)
	// tokenPattern is of names of headers and cookies (RFC 9110, section 5.6.2).
	tokenPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
	// queryPattern is of keys in a query as it is written, with its escapes.
	queryPattern = regexp.MustCompile("^[!$%'-;?-~]{1,128}$")
	headerName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
)

const (
	maxWeight   = 256
	maxBackends = 4096 // in a pool
	maxLimit    = 1_000_000
	maxDuration = 24 * time.Hour
	minInterval = 10 * time.Millisecond
)

func (p *Pool) validate() *Error {
	if err := validName("name", p.Name); err != nil {
		return err
	}
	return p.Settings.validate()
}

func (b *Backend) validate() *Error {
	if b.ID == "" {
		return invalid("id", "must not be empty")
	}
	if err := validName("name", b.Name); err != nil {
		return err
	}
	if b.Protocol != "http" && b.Protocol != "https" {
		return invalid("protocol", "must be http or https, not %q", b.Protocol)
	}
	if !validHost(b.Host) {
		return invalid("host", "must be an IP address or a host name, not %q", b.Host)
	}
	if b.Port < 1 || b.Port > 65535 {
		return invalid("port", "must be 1 to 65535, not %d", b.Port)
	}
	if b.Weight < 1 || b.Weight > maxWeight {
		return invalid("weight", "must be 1 to %d, not %d; to stop traffic set admin to drain or maint", maxWeight, b.Weight)
	}
	if b.Admin != Ready && b.Admin != Drain && b.Admin != Maint {
		return invalid("admin", "must be ready, drain or maint, not %q", b.Admin)
	}
	return nil
}

func (r *Route) validate() *Error {
	if r.Host != "" && !validHost(r.Host) {
		return invalid("host", "must be a host name or empty for any, not %q", r.Host)
	}
	if !strings.HasPrefix(r.Path, "/") || !printable(r.Path) || strings.ContainsAny(r.Path, "?#") {
		return invalid("path", "must begin with / and hold no space, control character, ? or #, not %q", r.Path)
	}
	if _, err := url.PathUnescape(r.Path); err != nil {
		return invalid("path", "must be escaped as in a URL, not %q", r.Path)
	}
	return validName("pool", r.Pool)
}

func validName(field, name string) *Error {
	if !namePattern.MatchString(name) {
		return invalid(field, "must be 1 to 63 letters, digits, dots, dashes or underscores, with a letter or digit at both ends, not %q", name)
	}
	return nil
}

// validHost refuses an IPv6 zone: it means something on one node only, and may
// hold any character.
func validHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	return len(host) <= 253 && hostPattern.MatchString(host) && !numericEnd.MatchString(host)
}

// canonicalHost gives the one spelling under which hosts are kept, so that two
// spellings of one address are seen to be the same.
func canonicalHost(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().String()
	}
	return strings.ToLower(host)
}

// canonical gives the one spelling of a route: what the proxy treats alike is one
// route.
func (r Route) canonical() Route {
	r.Host = strings.TrimSuffix(canonicalHost(r.Host), ".")
	r.Path = either(strings.TrimRight(r.Path, "/"), "/")
	return r
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
