package dns

// Similar reports whether one of two different names may be a typing error for the other: they are one letter put in,
// left out, changed or swapped with the next apart, or two in names of more than four letters.
func Similar(a, b string) bool {
	limit := 1
	if min(len(a), len(b)) > 4 {
		limit = 2
	}
	return a != b && abs(len(a)-len(b)) <= limit && edits(a, b) <= limit
}

func abs(n int) int { return max(n, -n) }

// edits counts them (Damerau-Levenshtein, optimal string alignment).
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
