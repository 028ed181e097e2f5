package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"lbnode/state"
)

// change is one thing in which two configurations differ.
type change struct {
	What   string `json:"what"`
	Before string `json:"before"` // empty: it was not there
	After  string `json:"after"`  // empty: it goes
}

// changesBetween lists what differs, by kind and name. Health is not part of a
// configuration.
func changesBetween(before, after *state.Replace) []change {
	was, will := describe(before), describe(after)
	changes := []change{}
	for what, old := range was {
		if will[what] != old {
			changes = append(changes, change{what, old, will[what]})
		}
	}
	for what, line := range will {
		if _, found := was[what]; !found {
			changes = append(changes, change{what, "", line})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.What, b.What) })
	return changes
}

// describe gives each thing of a configuration a line that tells all of it.
func describe(c *state.Replace) map[string]string {
	lines := map[string]string{}
	for i := range c.Pools {
		p := &c.Pools[i]
		lines["pool "+p.Name] = describePool(p)
		for place, b := range p.Backends {
			lines["backend "+p.Name+"/"+b.Name] = describeBackend(&b, place)
		}
	}
	for _, r := range c.Routes {
		lines["route "+r.Host+r.Path] = "to pool " + r.Pool
	}
	return lines
}

func describeBackend(b *state.Backend, place int) string {
	role := ""
	if b.Backup {
		role = ", backup"
	}
	return fmt.Sprintf("%s, weight %d%s, %s, place %d, id %s", b.URL(), b.Weight, role, b.Admin, place+1, b.ID)
}

// describePool tells the settings in the order in which the API has them.
func describePool(p *state.Pool) string {
	all := p.Strategy
	if p.HashOn != "" {
		all += ", hash on " + p.HashOn
	}
	all += describeCheck(&p.HealthCheck)
	all += fmt.Sprintf(", timeouts connect %s, request %s", p.Timeouts.Connect, p.Timeouts.Request)
	if p.Timeouts.Try > 0 {
		all += fmt.Sprintf(", try %s", p.Timeouts.Try)
	}
	if p.Timeouts.Hedge > 0 {
		all += fmt.Sprintf(", hedge %s", p.Timeouts.Hedge)
	}
	if l := p.Limits; l != (state.Limits{}) {
		all += fmt.Sprintf(", limits connections %d, pending %d, failures %d, open %s", l.Connections, l.Pending, l.Failures, l.Open)
	}
	if p.Sticky != (state.Sticky{}) {
		all += fmt.Sprintf(", sticky by the cookie %s, drain %s", p.Sticky.Cookie, cmp.Or(p.Sticky.Drain, state.StickyStay))
	}
	all += ", when all are down " + p.WhenAllDown
	if o := p.Outlier; o != (state.Outlier{}) {
		all += fmt.Sprintf(", outlier consecutive %d, success rate %d, time %s, max share %d", o.Consecutive, o.SuccessRate, o.Time, o.MaxShare)
	}
	if p.Panic > 0 {
		all += fmt.Sprintf(", panic threshold %d", p.Panic)
	}
	if p.SlowStart > 0 {
		all += fmt.Sprintf(", slow start %s", p.SlowStart)
	}
	if p.ProxyProtocol != "" {
		all += ", PROXY protocol " + p.ProxyProtocol
	}
	return all
}

// describeCheck tells, of what most checks do not have, only what there is.
func describeCheck(h *state.HealthCheck) string {
	all := fmt.Sprintf(", check %s %s every %s within %s, rise %d, fall %d", h.Type, h.Path, h.Interval, h.Timeout, h.Rise, h.Fall)
	if h.UnhealthyInterval > 0 {
		all += fmt.Sprintf(", check every %s while unhealthy", h.UnhealthyInterval)
	}
	port, body := "", ""
	if h.Port > 0 {
		port = strconv.Itoa(h.Port)
	}
	if h.Body != "" {
		body = strconv.Quote(h.Body)
	}
	for _, part := range []struct{ what, value string }{
		{"method", h.Method}, {"host", h.Host}, {"status", h.Status}, {"body", body}, {"TLS", h.TLS}, {"port", port}, {"service", h.Service},
	} {
		if part.value != "" {
			all += fmt.Sprintf(", check %s %s", part.what, part.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		all += fmt.Sprintf(", check header %s: %s", name, h.Headers[name])
	}
	return all
}

func writeChanges(w io.Writer, changes []change) {
	for _, c := range changes {
		switch {
		case c.Before == "":
			fmt.Fprintf(w, "+ %s: %s\n", c.What, c.After)
		case c.After == "":
			fmt.Fprintf(w, "- %s: %s\n", c.What, c.Before)
		default:
			fmt.Fprintf(w, "~ %s: %s\n  becomes %s\n", c.What, c.Before, c.After)
		}
	}
}
