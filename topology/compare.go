package topology

import (
	"reflect"
	"slices"
)

// Compare returns the sorted names that are only in want, in both but not deeply equal, and only in have.
func Compare[T any](have, want map[string]T) (add, change, remove []string) {
	for name, w := range want {
		if h, ok := have[name]; !ok {
			add = append(add, name)
		} else if !reflect.DeepEqual(h, w) {
			change = append(change, name)
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			remove = append(remove, name)
		}
	}
	slices.Sort(add)
	slices.Sort(change)
	slices.Sort(remove)
	return add, change, remove
}
