package main

import (
	"fmt"

	"lbnode/cluster/admin"
)

// suggest ends a complaint about an unknown word with the one that was probably
// meant, or with nothing.
func suggest(word string, known []string) string {
	if near := admin.Nearest(word, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
