package admin

import "github.com/agnivade/levenshtein"

// maxSlips is how many letters a word may differ by from the one that was meant.
const maxSlips = 2

// Nearest returns the known word that word is most likely a slip of, empty if it
// is like none of them.
func Nearest(word string, known []string) string {
	best, least := "", maxSlips+1
	for _, k := range known {
		if len(word) > 4*(len(k)+maxSlips) { // in any encoding too long; comparing would take as long as the word says
			continue
		}
		if d := levenshtein.ComputeDistance(word, k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}
