package state

import (
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// rule is which values a setting takes, and what a change makes of them. In a change, a
// zero value is one that was not given; where a setting may be absent, a word takes it away.
type rule interface {
	// merge makes the value of s, which was given in a change, the one that is kept, where
	// old had another.
	merge(s, old *Settings)
	// begin gives the setting its default.
	begin(s *Settings)
	// validate looks at a value that is kept.
	validate(s *Settings, path string) *Error
	// version is 0 where no value was given, else the lowest in which it can be written, if the
	// setting itself can be.
	version(s *Settings) int
	// value is nil if there is none.
	value(s *Settings) any
	// values says what may be given, in words.
	values() string
	// off is what takes the setting away, nil if nothing does.
	off() any
}

// word is a value of a choice.
type word struct {
	name  string
	since int // the first version of commands in which it means something
}

// choice is one of some words.
type choice struct {
	at      func(*Settings) *string
	initial string
	none    string // the word that takes it away; empty: nothing does
	words   []word
}

func (c choice) off() any               { return present(c.none) }
func (c choice) begin(s *Settings)      { *c.at(s) = c.initial }
func (c choice) merge(s, old *Settings) { *c.at(s) = unless(c.none, *c.at(s), *c.at(old)) }
func (c choice) value(s *Settings) any  { return present(*c.at(s)) }

func (c choice) validate(s *Settings, path string) *Error {
	given := *c.at(s)
	if given == "" && c.initial == "" || slices.ContainsFunc(c.words, func(w word) bool { return w.name == given }) {
		return nil
	}
	return invalid(path, "must be %s, not %q", c.values(), given)
}

func (c choice) values() string {
	var names []string
	if c.none != "" {
		names = append(names, c.none)
	}
	for _, w := range c.words {
		names = append(names, w.name)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// version is that of the row for a word that nobody knows: all refuse it alike.
func (c choice) version(s *Settings) int {
	for _, w := range c.words {
		if w.name == *c.at(s) {
			return w.since
		}
	}
	return given(*c.at(s))
}

// text is free within what ok allows.
type text struct {
	at      func(*Settings) *string
	initial string
	none    string // the word that takes it away
	want    string // what ok allows, in words
	ok      func(string) bool
	clean   func(string) string // the one spelling that is kept; nil: any
}

func (t text) off() any                { return present(t.none) }
func (t text) begin(s *Settings)       { *t.at(s) = t.initial }
func (t text) value(s *Settings) any   { return present(*t.at(s)) }
func (t text) version(s *Settings) int { return given(*t.at(s)) }

func (t text) values() string { return t.want }

func (t text) merge(s, old *Settings) {
	if t.clean != nil {
		*t.at(s) = t.clean(*t.at(s))
	}
	*t.at(s) = unless(t.none, *t.at(s), *t.at(old))
}

func (t text) validate(s *Settings, path string) *Error {
	given := *t.at(s)
	if given == "" && t.initial == "" || t.ok(given) {
		return nil
	}
	if len(given) > maxShown {
		return invalid(path, "must be %s, not one of %d bytes", t.want, len(given))
	}
	return invalid(path, "must be %s, not %q", t.want, given)
}

// maxShown is how much of a wrong value an error repeats.
const maxShown = 512

// count is a number of least to most.
type count struct {
	at          func(*Settings) *int
	initial     int
	least, most int
	unit        string // behind the numbers, with a space before it; may be empty
	none        string // what there is without it, which NoLimit brings; empty: it is always there
}

func (c count) off() any {
	if c.none == "" {
		return nil
	}
	return NoLimit
}

func (c count) begin(s *Settings)       { *c.at(s) = c.initial }
func (c count) value(s *Settings) any   { return present(*c.at(s)) }
func (c count) version(s *Settings) int { return given(*c.at(s)) }

func (c count) values() string {
	values := fmt.Sprintf("%d to %d%s", c.least, c.most, c.unit)
	if c.none != "" {
		values += fmt.Sprintf(", or %d for %s", NoLimit, c.none)
	}
	return values
}

func (c count) merge(s, old *Settings) {
	if c.none != "" && *c.at(s) == NoLimit {
		*c.at(s) = 0
		return
	}
	*c.at(s) = either(*c.at(s), *c.at(old))
}

func (c count) validate(s *Settings, path string) *Error {
	given := *c.at(s)
	if c.none != "" && given == 0 || c.least <= given && given <= c.most {
		return nil
	}
	return invalid(path, "must be %s, not %d", c.values(), given)
}

// duration is a time of least to most.
type duration struct {
	at          func(*Settings) *Duration
	initial     time.Duration
	least, most time.Duration
	optional    bool // NoDuration takes it away
}

// noDurationSince is the version that has NoDuration.
const noDurationSince = 4

func (d duration) off() any {
	if !d.optional {
		return nil
	}
	return "none"
}

func (d duration) begin(s *Settings)     { *d.at(s) = Duration(d.initial) }
func (d duration) value(s *Settings) any { return present(*d.at(s)) }

func (d duration) version(s *Settings) int {
	if *d.at(s) == NoDuration {
		return noDurationSince
	}
	return given(*d.at(s))
}

func (d duration) merge(s, old *Settings) {
	if d.optional && *d.at(s) == NoDuration {
		*d.at(s) = 0
		return
	}
	*d.at(s) = either(*d.at(s), *d.at(old))
}

func (d duration) validate(s *Settings, path string) *Error {
	if d.optional && *d.at(s) == 0 {
		return nil
	}
	if given := time.Duration(*d.at(s)); given < d.least || given > d.most {
		return invalid(path, "must be %s, not %s", d.values(), given)
	}
	return nil
}

func (d duration) values() string {
	values := d.least.String() + " to " + d.most.String()
	if d.optional {
		values += ", or none"
	}
	return values
}

// headers are names and values. A change adds to those there are; an empty value takes
// one away.
type headers struct {
	at func(*Settings) *map[string]string
}

func (headers) off() any                                   { return nil }
func (headers) begin(*Settings)                            {}
func (h headers) merge(s, old *Settings)                   { *h.at(s) = mergedHeaders(*h.at(s), *h.at(old)) }
func (h headers) validate(s *Settings, path string) *Error { return validHeaders(*h.at(s)) }

func (h headers) values() string {
	return fmt.Sprintf("at most %d, of letters, digits and dashes, with values of at most %d bytes", maxHeaders, maxCheckText)
}

func (h headers) version(s *Settings) int {
	if len(*h.at(s)) > 0 {
		return 1
	}
	return 0
}

func (h headers) value(s *Settings) any {
	if len(*h.at(s)) == 0 {
		return nil
	}
	return *h.at(s)
}

// mergedHeaders never changes old, which views share. Of two spellings of one name
// the later in the order of the alphabet counts: all nodes must make the same of it.
func mergedHeaders(given, old map[string]string) map[string]string {
	if len(given) == 0 {
		return old
	}
	merged := maps.Clone(old)
	if merged == nil {
		merged = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if value := given[name]; value == "" {
			delete(merged, textproto.CanonicalMIMEHeaderKey(name))
		} else {
			merged[textproto.CanonicalMIMEHeaderKey(name)] = value
		}
	}
	if len(merged) == 0 {
		return nil
	}
	return merged
}

// unless gives what is left of old by a change, where one word takes it away.
func unless(word, given, old string) string {
	if given != "" && given == word {
		return ""
	}
	return either(given, old)
}

// either returns given unless it is the zero value, which means "not given".
func either[T comparable](given, otherwise T) T {
	var zero T
	if given == zero {
		return otherwise
	}
	return given
}

// present is nil for the zero value.
func present[T comparable](value T) any {
	var zero T
	if value == zero {
		return nil
	}
	return value
}

// given is the version of a value that each version can say: none if it was not given.
func given[T comparable](value T) int {
	if present(value) == nil {
		return 0
	}
	return 1
}
