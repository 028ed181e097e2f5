package state

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
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

	minSlowStart = 100 * time.Millisecond
)

func (p *Pool) validate() *Error {
	if err := validName("name", p.Name); err != nil {
		return err
	}
	if !slices.Contains(strategies, p.Strategy) {
		return invalid("strategy", "must be one of %s, not %q", strings.Join(strategies, ", "), p.Strategy)
	}
	if err := p.validHashOn(); err != nil {
		return err
	}
	if p.WhenAllDown != Reject && p.WhenAllDown != FailOpen {
		return invalid("when_all_down", "must be %s or %s, not %q", Reject, FailOpen, p.WhenAllDown)
	}
	if err := p.HealthCheck.validate(); err != nil {
		return err
	}
	if err := validDuration("timeouts.connect", p.Timeouts.Connect, time.Millisecond, maxDuration); err != nil {
		return err
	}
	if err := validDuration("timeouts.request", p.Timeouts.Request, time.Millisecond, maxDuration); err != nil {
		return err
	}
	for _, optional := range []struct {
		field string
		value Duration
	}{{"timeouts.try", p.Timeouts.Try}, {"timeouts.hedge", p.Timeouts.Hedge}} {
		if optional.value == 0 {
			continue
		}
		if err := validDuration(optional.field, optional.value, time.Millisecond, time.Duration(p.Timeouts.Request)); err != nil {
			return err
		}
	}
	switch p.ProxyProtocol {
	case "", ProxyV1, ProxyV2:
	default:
		return invalid("proxy_protocol", "must be %s, %s or %s, not %q", ProxyV1, ProxyV2, ProxyNone, p.ProxyProtocol)
	}
	if err := p.Sticky.validate(); err != nil {
		return err
	}
	if p.Panic < 0 || p.Panic > 100 {
		return invalid("panic_threshold", "must be 1 to 100 percent, or %d for none, not %d", NoLimit, p.Panic)
	}
	if p.SlowStart != 0 {
		if err := validDuration("slow_start", p.SlowStart, minSlowStart, maxDuration); err != nil {
			return err
		}
	}
	if err := p.Outlier.validate(); err != nil {
		return err
	}
	return p.Limits.validate()
}

func (s *Sticky) validate() *Error {
	switch {
	case s.Cookie != "" && !tokenPattern.MatchString(s.Cookie):
		return invalid("sticky.cookie", "must be %s or a name of at most 128 letters, digits and !#$%%&'*+.^_`|~-, not %q", StickyNone, s.Cookie)
	case s.Drain != "" && s.Drain != StickyMove:
		return invalid("sticky.drain", "must be %s or %s, not %q", StickyStay, StickyMove, s.Drain)
	case s.Drain != "" && s.Cookie == "":
		return invalid("sticky.drain", "must be left out without sticky.cookie: no client is kept anywhere")
	}
	return nil
}

func (o *Outlier) validate() *Error {
	if o.Consecutive < 0 || o.Consecutive > maxLimit {
		return invalid("outlier.consecutive", "must be 1 to %d, or %d for none, not %d", maxLimit, NoLimit, o.Consecutive)
	}
	if o.SuccessRate < 0 || o.SuccessRate > 100 {
		return invalid("outlier.success_rate", "must be 1 to 100 percent points, or %d for none, not %d", NoLimit, o.SuccessRate)
	}
	if o.MaxShare < 0 || o.MaxShare > 100 {
		return invalid("outlier.max_share", "must be 1 to 100 percent, or %d for the default, not %d", NoLimit, o.MaxShare)
	}
	if o.Time != 0 {
		return validDuration("outlier.time", o.Time, 10*time.Millisecond, maxDuration)
	}
	return nil
}

// strategies are those that there are.
var strategies = []string{RoundRobin, Random, LeastConnections, P2C, LeastTime, Hash}

func (p *Pool) validHashOn() *Error {
	if p.HashOn == "" {
		return nil
	}
	if p.Strategy != Hash {
		return invalid("hash_on", "must be left out where the strategy is %s: only %s looks at it", p.Strategy, Hash)
	}
	kind, name, named := strings.Cut(p.HashOn, ":")
	pattern := tokenPattern
	switch kind {
	case HashPath:
		if !named {
			return nil
		}
	case HashQuery:
		pattern = queryPattern
		fallthrough
	case HashHeader, HashCookie:
		if pattern.MatchString(name) {
			return nil
		}
	}
	return invalid("hash_on", "must be %s, %s, %s:NAME, %s:NAME or %s:NAME with a name of at most 128 characters as requests have it, not %q",
		HashClient, HashPath, HashHeader, HashCookie, HashQuery, p.HashOn)
}

func (l *Limits) validate() *Error {
	for _, limit := range []struct {
		field string
		value int
	}{{"connections", l.Connections}, {"pending", l.Pending}, {"failures", l.Failures}} {
		if limit.value < 0 || limit.value > maxLimit {
			return invalid("limits."+limit.field, "must be 1 to %d, or %d for none, not %d", maxLimit, NoLimit, limit.value)
		}
	}
	if l.Pending > 0 && l.Connections == 0 {
		return invalid("limits.pending", "must be none without limits.connections: it is for requests that wait for one of them")
	}
	if l.Open != 0 {
		return validDuration("limits.open", l.Open, 10*time.Millisecond, maxDuration)
	}
	return nil
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

func validDuration(field string, d Duration, least, most time.Duration) *Error {
	if time.Duration(d) < least || time.Duration(d) > most {
		return invalid(field, "must be %s to %s, not %s", least, most, d)
	}
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
