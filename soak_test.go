package main

import (
	"bufio"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSoak runs testdata/soak: what shows only after many times or under load. Without MAINSTAY_SOAK=1 it takes seconds, and is there
// to keep the scripts themselves whole.
func TestSoak(t *testing.T) {
	sizes := map[string]string{"RESTARTS": "60", "RATE": "150", "REQUESTS": "600", "STREAMS": "1", "UPDATES": "1", "UPGRADES": "1", "LINE": "20000000", "SPEW": "5000000", "SECONDS": "2"}
	replicas := []string{"2"}
	if os.Getenv("MAINSTAY_SOAK") != "" {
		sizes = map[string]string{"RESTARTS": "1000", "RATE": "1000", "REQUESTS": "10000", "STREAMS": "4", "UPDATES": "3", "UPGRADES": "20", "LINE": "1073741824", "SPEW": "100000000", "SECONDS": "20"}
		replicas = []string{"1", "2", "4"}
	}
	for _, n := range replicas {
		t.Run("replicas "+n, func(t *testing.T) {
			params := scripts(scriptRoot(t))
			params.Dir = "testdata/soak"
			params.Cmds["census"], params.Cmds["flat"] = census, flat
			setup := params.Setup
			params.Setup = func(env *testscript.Env) error {
				env.Setenv("REPLICAS", n)
				for _, name := range slices.Sorted(maps.Keys(sizes)) {
					env.Setenv(name, sizes[name])
				}
				return setup(env)
			}
			testscript.Run(t, params)
		})
	}
}

// figures are the metrics of Mainstay's own process that a census takes, and by how much each may have grown: a leak of one a restart is more.
var figures = map[string]float64{"go_goroutines": 4, "go_threads": 8, "process_open_fds": 24, "process_resident_memory_bytes": 24 << 20}

// census NAME URL keeps the figures that /metrics tells, to be compared by flat.
func census(ts *testscript.TestScript, _ bool, args []string) {
	response, err := http.Get(args[1])
	ts.Check(err)
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if _, ok := figures[name]; ok {
			ts.Setenv(args[0]+"_"+name, value)
			ts.Logf("%s: %s %s", args[0], name, value)
		}
	}
}

// flat BEFORE AFTER [FIGURE...] fails if one of the figures, or any if none is named, has grown from one census to the other.
func flat(ts *testscript.TestScript, _ bool, args []string) {
	names := args[2:]
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(figures))
	}
	for _, name := range names {
		before, err := strconv.ParseFloat(ts.Getenv(args[0]+"_"+name), 64)
		ts.Check(err)
		after, err := strconv.ParseFloat(ts.Getenv(args[1]+"_"+name), 64)
		ts.Check(err)
		ts.Logf("%s: %.0f, then %.0f", name, before, after)
		allowed := figures[name]
		if name == "process_resident_memory_bytes" && underRace {
			allowed *= 3 // the race detector remembers what was done with each byte
		}
		if after > before+allowed {
			ts.Fatalf("%s has grown from %.0f to %.0f", name, before, after)
		}
	}
}
