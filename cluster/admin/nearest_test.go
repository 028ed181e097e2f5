package admin

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"ls", "add", "rm", "set", "members", "join"}
	for _, test := range []struct{ word, want string }{
		{"memebrs", "members"},
		{"Members", "members"},
		{"jion", "join"},
		{"ad", "add"},
		{"sets", "set"},
		{"m", "rm"},
		{"", ""},
		{"xx", ""}, // as far from ls as a word of two letters can be
		{"frobnicate", ""},
		{strings.Repeat("é", 1<<20), ""},
	} {
		if got := Nearest(test.word, known); got != test.want {
			t.Errorf("%.20q: got %q, want %q", test.word, got, test.want)
		}
	}
	if got := Nearest("x", nil); got != "" {
		t.Errorf("among none: got %q, want none", got)
	}
}
