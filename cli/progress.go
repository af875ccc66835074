package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"mainstay/supervisor"
)

// A journey tells, a line for each step, how services come to be what they are meant to be. Of those that are so all
// along it says nothing.
type journey struct {
	out   io.Writer
	lines map[string]string // the last of each service, without its figures
	told  map[string]time.Time
}

// figuresEvery is how often a canary's figures are told while nothing else changes.
const figuresEvery = 5 * time.Second

func newJourney(out io.Writer) *journey {
	return &journey{out: out, lines: map[string]string{}, told: map[string]time.Time{}}
}

// tell prints what is new of services. waiting says which of them have not arrived.
func (j *journey) tell(now time.Time, services []supervisor.ServiceStatus, waiting func(s supervisor.ServiceStatus) bool) {
	for _, s := range services {
		line := fmt.Sprintf("%s: %s, %d of %d ready", s.Name, s.State, s.Ready, s.Desired)
		why, figures := s.Reason, ""
		if u := s.Update; u != nil {
			line, why = s.Name+": "+updateText(u), u.Reason
			if u.Canary != nil {
				figures = canaryText(u.Canary)
			}
		}
		last, known := j.lines[s.Name]
		again := figures != "" && now.Sub(j.told[s.Name]) >= figuresEvery
		if line == last && !again || !known && !waiting(s) {
			continue
		}
		j.lines[s.Name], j.told[s.Name] = line, now
		for _, more := range []string{figures, why} {
			if more != "" {
				line += ": " + indent(more)
			}
		}
		fmt.Fprintf(j.out, "%s  %s\n", now.Local().Format(time.TimeOnly), plain(line))
	}
}

// updateText says how far an update is.
func updateText(u *supervisor.UpdateStatus) string {
	return fmt.Sprintf("update to generation %d: %d of %d replaced, %s", u.Generation, u.Replaced, u.Of, u.Phase)
}

// canaryText says what is seen of a canary.
func canaryText(c *supervisor.CanaryStatus) string {
	of := func(f supervisor.CanaryFigures) string {
		text := fmt.Sprintf("%s, %s failed", count(int(f.Requests), "request"), strconv.FormatFloat(100*f.ErrorRatio, 'g', 3, 64)+" %")
		if f.Requests > 0 {
			text += ", 95 % within " + latency(f.P95)
		}
		return text
	}
	return fmt.Sprintf("%s with %s %% for %s more: %s; the old ones: %s", c.Instance, strconv.FormatFloat(c.Weight, 'g', 3, 64),
		duration(time.Until(c.Ends)), of(c.New), of(c.Old))
}

// latency shows seconds as 12.3ms.
func latency(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	for _, unit := range []time.Duration{time.Second, time.Millisecond} {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.Round(time.Microsecond).String()
}

// span shortens the names of instances to what fits into a column: web/1…4 stands for web/1 web/2 web/3 web/4.
func span(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	var parts []string
	for begin := 0; begin < len(names); {
		end := begin
		for end+1 < len(names) && follows(names[end], names[end+1]) {
			end++
		}
		part := names[begin]
		if end > begin {
			part += "…" + names[end][strings.LastIndex(names[end], "/")+1:]
		}
		parts = append(parts, part)
		begin = end + 1
	}
	return strings.Join(parts, " ")
}

// follows reports whether b is the next replica after a.
func follows(a, b string) bool {
	serviceA, replicaA, ok := strings.Cut(a, "/")
	serviceB, replicaB, _ := strings.Cut(b, "/")
	n, err := strconv.Atoi(replicaA)
	return ok && err == nil && serviceA == serviceB && replicaB == strconv.Itoa(n+1)
}
