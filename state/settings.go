package state

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Settings are what an operator may say of a pool, but for its name and its backends. Each
// has a row in the table below, which is all that is to be said of it but for its effect. In a
// command, a zero field is one that was not given: creating takes the default for it,
// updating leaves it as it was.
type Settings struct {
	Strategy string `json:"strategy"`
	// HashOn is what requests have in common that strategy Hash sends to one backend: the
	// client's address if it is empty, the path, or the value of a header, a cookie or
	// a query key, such as "cookie:session". In a change, HashClient takes it away, and so
	// does another strategy.
	HashOn      string      `json:"hash_on,omitempty"`
	HealthCheck HealthCheck `json:"health_check"`
	Timeouts    Timeouts    `json:"timeouts"`
	Limits      Limits      `json:"limits,omitzero"`
	Sticky      Sticky      `json:"sticky,omitzero"`
	Outlier     Outlier     `json:"outlier,omitzero"`
	WhenAllDown string      `json:"when_all_down"`
	// Panic is the share of the ready backends, in percent, below which health is
	// ignored: if fewer are eligible, all get requests, so that the few are not crushed.
	// Those that nobody has probed yet do not count.
	// 0 is never; in a change, NoLimit takes it away.
	Panic int `json:"panic_threshold,omitempty"`
	// SlowStart is the time in which a backend that has become healthy or ready comes
	// to its whole share of the traffic. 0 is at once; in a change, NoDuration takes it
	// away.
	SlowStart Duration `json:"slow_start,omitempty"`
	// ProxyProtocol is the version of the PROXY protocol, ProxyV1 or ProxyV2, in which
	// backends are told of the client; none if it is empty. In a change, ProxyNone takes
	// it away.
	ProxyProtocol string `json:"proxy_protocol,omitempty"`
}

// setting is a row of the table.
type setting struct {
	path  string // as in JSON, with dots between
	since int    // the first version of commands that has it
	means string // for the reference, where the unit is said by rule
	rule  rule
	// needs says which other setting it has no effect without, in words; empty if it has one,
	// or nil if it always has.
	needs func(*Settings) string
}

// settings is the table, in the order of the fields.
var settings = joined([]setting{
	{path: "strategy", since: 1, means: "how the next backend is picked; all go by weight, and count only this node's own requests",
		rule: choice{
			at:      func(s *Settings) *string { return &s.Strategy },
			initial: RoundRobin,
			words:   []word{{RoundRobin, 1}, {Random, 4}, {LeastConnections, 4}, {P2C, 4}, {LeastTime, 4}, {Hash, 4}},
		}},
	{path: "hash_on", since: 4, means: "what requests have in common that `hash` sends to one backend; requests without it go by the client",
		rule: text{
			at:   func(s *Settings) *string { return &s.HashOn },
			none: HashClient,
			want: HashClient + ", " + HashPath + ", " + HashHeader + ":NAME, " + HashCookie + ":NAME or " + HashQuery + ":NAME" +
				" with a name of at most 128 characters as requests have it",
			ok: validHashOn,
		}},
}, checkSettings, []setting{
	{path: "timeouts.connect", since: 1, means: "bounds connecting to a backend",
		rule: duration{
			at:      func(s *Settings) *Duration { return &s.Timeouts.Connect },
			initial: 3 * time.Second, least: time.Millisecond, most: maxDuration,
		}},
	{path: "timeouts.request", since: 1, means: "how long a request may make no progress: until the answer begins, and between any two pieces after that",
		rule: duration{
			at:      func(s *Settings) *Duration { return &s.Timeouts.Request },
			initial: 30 * time.Second, least: time.Millisecond, most: maxDuration,
		}},
	{path: "timeouts.try", since: 3, means: "how long one backend has to begin its answer before a request that may be repeated goes to another",
		rule: duration{
			at:    func(s *Settings) *Duration { return &s.Timeouts.Try },
			least: time.Millisecond, most: maxDuration, optional: true,
		}},
	{path: "timeouts.hedge", since: 3, means: "how long after it was sent a request that may be repeated is sent to a second backend too",
		rule: duration{
			at:    func(s *Settings) *Duration { return &s.Timeouts.Hedge },
			least: time.Millisecond, most: maxDuration, optional: true,
		}},
	{path: "limits.connections", since: 3, means: "connections from one node to one backend",
		rule: count{
			at:    func(s *Settings) *int { return &s.Limits.Connections },
			least: 1, most: maxLimit, none: "none",
		}},
	{path: "limits.pending", since: 3, means: "requests at one node that may wait for one of `limits.connections`",
		rule: count{
			at:    func(s *Settings) *int { return &s.Limits.Pending },
			least: 1, most: maxLimit, none: "none",
		}},
	{path: "limits.failures", since: 3, means: "requests in a row that fail until a node sends the backend no more: its circuit opens",
		rule: count{
			at:    func(s *Settings) *int { return &s.Limits.Failures },
			least: 1, most: maxLimit, none: "none",
		}},
	{path: "limits.open", since: 3, means: "how long a circuit stays open before one request is sent as a trial; 10 s without it",
		rule: duration{
			at:    func(s *Settings) *Duration { return &s.Limits.Open },
			least: 10 * time.Millisecond, most: maxDuration, optional: true,
		}, needs: needsFailures},
	{path: "sticky.cookie", since: 4, means: "the cookie that keeps a client at the backend that has answered it first",
		rule: text{
			at:   func(s *Settings) *string { return &s.Sticky.Cookie },
			none: StickyNone,
			want: StickyNone + " or a name of at most 128 letters, digits and !#$%&'*+.^_`|~-",
			ok:   tokenPattern.MatchString,
		}},
	{path: "sticky.drain", since: 4, means: "what becomes of clients whose backend is drained",
		rule: choice{
			at:   func(s *Settings) *string { return &s.Sticky.Drain },
			none: StickyStay, words: []word{{StickyMove, 4}},
		}},
	{path: "outlier.consecutive", since: 4, means: "failures in a row, answers of 5xx among them, after which a node ejects a backend",
		rule: count{
			at:    func(s *Settings) *int { return &s.Outlier.Consecutive },
			least: 1, most: maxLimit, none: "none",
		}},
	{path: "outlier.success_rate", since: 4, means: "how many percent points less often than the others a backend must succeed to be ejected",
		rule: count{
			at:    func(s *Settings) *int { return &s.Outlier.SuccessRate },
			least: 1, most: 100, unit: " percent points", none: "none",
		}},
	{path: "outlier.time", since: 4, means: "how long the first ejection lasts, and longer each time that it happens again; 10 s without it",
		rule: duration{
			at:    func(s *Settings) *Duration { return &s.Outlier.Time },
			least: 10 * time.Millisecond, most: maxDuration, optional: true,
		}, needs: needsOutlier},
	{path: "outlier.max_share", since: 4, means: "the most of a pool's backends that may be ejected at a time; 50 percent without it",
		rule: count{
			at:    func(s *Settings) *int { return &s.Outlier.MaxShare },
			least: 1, most: 100, unit: " percent", none: "the default",
		}, needs: needsOutlier},
	{path: "when_all_down", since: 1, means: "what requests get when no backend can serve: 503, or a try all the same",
		rule: choice{
			at:      func(s *Settings) *string { return &s.WhenAllDown },
			initial: Reject, words: []word{{Reject, 1}, {FailOpen, 1}},
		}},
	{path: "panic_threshold", since: 4, means: "the share of ready backends below which health is ignored",
		rule: count{
			at:    func(s *Settings) *int { return &s.Panic },
			least: 1, most: 100, unit: " percent", none: "none",
		}},
	{path: "slow_start", since: 4, means: "the time in which a backend that has become healthy or ready comes to its whole share",
		rule: duration{
			at:    func(s *Settings) *Duration { return &s.SlowStart },
			least: 100 * time.Millisecond, most: maxDuration, optional: true,
		}},
	{path: "proxy_protocol", since: 3, means: "the version of the PROXY protocol in which backends are told of the client",
		rule: choice{
			at:   func(s *Settings) *string { return &s.ProxyProtocol },
			none: ProxyNone, words: []word{{ProxyV1, 3}, {ProxyV2, 3}},
		}},
})

func needsFailures(s *Settings) string {
	if s.Limits.Failures == 0 {
		return "limits.failures"
	}
	return ""
}

func needsOutlier(s *Settings) string {
	if !s.Outlier.On() {
		return "outlier.consecutive or outlier.success_rate"
	}
	return ""
}

func joined(parts ...[]setting) (all []setting) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// DefaultSettings are those of a pool that names none.
func DefaultSettings() Settings {
	var s Settings
	for _, row := range settings {
		row.rule.begin(&s)
	}
	return s
}

// Reference tells of each setting its path, the values it takes, what it is without one (empty:
// nothing), and what it means, in the order of the table.
func Reference() [][4]string {
	var lines [][4]string
	defaults := DefaultSettings()
	for _, row := range settings {
		initial := ""
		if value := row.rule.value(&defaults); value != nil {
			initial = fmt.Sprint(value)
		}
		lines = append(lines, [4]string{row.path, row.rule.values(), initial, row.means})
	}
	return lines
}

// Off is what takes the setting with that path away in a change, as JSON has it: a string or
// an int, nil if nothing does or there is no such setting.
func Off(path string) any {
	for _, row := range settings {
		if row.path == path {
			return row.rule.off()
		}
	}
	return nil
}

// over gives the settings that s, a change, makes of old.
func (s Settings) over(old Settings) Settings {
	given := s
	for _, row := range settings {
		row.rule.merge(&s, &old)
	}
	if given.HashOn == "" && s.Strategy != Hash {
		s.HashOn = ""
	}
	if given.Sticky.Cookie == StickyNone {
		s.Sticky = Sticky{}
	}
	if s.HealthCheck.UnhealthyInterval == s.HealthCheck.Interval {
		s.HealthCheck.UnhealthyInterval = 0
	}
	return s
}

// version is the lowest in which the settings can be written.
func (s *Settings) version() int {
	version := 1
	for _, row := range settings {
		if since := row.rule.version(s); since > 0 {
			version = max(version, row.since, since)
		}
	}
	return version
}

// Effect refuses a change that gives a setting another value than before where nobody would
// look at it. Such values are kept, so that who changes back finds them; only to set one is
// a mistake. What a command says is not refused for it: older logs have such commands.
func (s Settings) Effect(before Settings) *Error {
	after := s.over(before)
	for _, row := range settings {
		made := row.rule.value(&after)
		if row.needs == nil || made == nil || reflect.DeepEqual(made, row.rule.value(&before)) {
			continue
		}
		if needs := row.needs(&after); needs != "" {
			return invalid(row.path, "would have no effect: it needs %s", needs)
		}
	}
	return nil
}

// Each calls f with each setting that is there: its path, as in JSON with dots between, and
// its value.
func (s *Settings) Each(f func(path string, value any)) {
	for _, row := range settings {
		if value := row.rule.value(s); value != nil {
			f(row.path, value)
		}
	}
}

func (s *Settings) validate() *Error {
	for _, row := range settings {
		if err := row.rule.validate(s, row.path); err != nil {
			return err
		}
	}
	for _, agree := range []func() *Error{s.HealthCheck.agree, s.Timeouts.agree, s.Limits.agree, s.Sticky.agree} {
		if err := agree(); err != nil {
			return err
		}
	}
	if s.HashOn != "" && s.Strategy != Hash {
		return invalid("hash_on", "must be left out where the strategy is %s: only %s looks at it", s.Strategy, Hash)
	}
	return nil
}

// The methods named agree look at whether values go together, each of which is one that may
// be.

func (t *Timeouts) agree() *Error {
	for _, limited := range []struct {
		field string
		value Duration
	}{{"timeouts.try", t.Try}, {"timeouts.hedge", t.Hedge}} {
		if limited.value > t.Request {
			return invalid(limited.field, "must be at most timeouts.request, %s, not %s", t.Request, limited.value)
		}
	}
	return nil
}

func (l *Limits) agree() *Error {
	if l.Pending > 0 && l.Connections == 0 {
		return invalid("limits.pending", "must be none without limits.connections: it is for requests that wait for one of them")
	}
	return nil
}

func (s *Sticky) agree() *Error {
	if s.Drain != "" && s.Cookie == "" {
		return invalid("sticky.drain", "must be left out without sticky.cookie: no client is kept anywhere")
	}
	return nil
}

// validHashOn looks at what is not HashClient.
func validHashOn(on string) bool {
	kind, name, named := strings.Cut(on, ":")
	switch kind {
	case HashPath:
		return !named
	case HashQuery:
		return queryPattern.MatchString(name)
	case HashHeader, HashCookie:
		return tokenPattern.MatchString(name)
	}
	return false
}
