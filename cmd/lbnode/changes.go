package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

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
			lines["backend "+p.Name+"/"+b.Name] = describeBackend(b, place)
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

// describePool tells each setting that there is, in the order of the table of settings.
func describePool(p *state.Pool) string {
	var words []string
	p.Each(func(path string, value any) {
		if headers, ok := value.(map[string]string); ok {
			for _, name := range slices.Sorted(maps.Keys(headers)) {
				words = append(words, fmt.Sprintf("%s %s: %q", path, name, headers[name]))
			}
			return
		}
		words = append(words, fmt.Sprintf("%s %v", path, value))
	})
	return strings.Join(words, ", ")
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
