package topology

import "strings"

// nearest returns the name of names that word was probably meant to be: at most two slips of the
// keyboard away and no more than one for two letters, the nearest and then first in names. It returns "" if there is none.
func nearest(word string, names []string) string {
	best, bestDistance := "", 3
	for _, name := range names {
		if abs(len(name)-len(word)) >= bestDistance {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < bestDistance && 2*d <= len(word) {
			best, bestDistance = name, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance is the Damerau-Levenshtein distance of a and b in its restricted form (optimal string
// alignment): insertions, deletions, substitutions and swaps of neighbours, none twice at one place.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	var before []int
	last := make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := range s {
		row := make([]int, len(t)+1)
		row[0] = i + 1
		for j := range t {
			cost := 1
			if s[i] == t[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(t)]
}
