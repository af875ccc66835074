package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mainstay/supervisor"
)

// logs streams the lines that the query asks for as one JSON object a line. What goes wrong after
// the first line ends the stream with an [Error] as its last one.
func (a *api) logs(w http.ResponseWriter, r *http.Request) {
	q, err := parseLogQuery(r.URL.Query())
	if err != nil {
		writeError(w, asError(err, CodeUsage))
		return
	}
	for _, source := range q.Of {
		service, ok := a.engine.Topology().Services[source.Service]
		if !ok {
			writeError(w, newError(CodeNotFound, "no service %q", source.Service))
			return
		}
		if len(service.External) > 0 {
			writeError(w, newError(CodeNotFound, "service %q runs elsewhere: its output is not here", source.Service))
			return
		}
	}

	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	control.Flush() // a follower sees that it is connected before the first line
	lines := json.NewEncoder(w)
	err = a.admin.rooms.Supervisor.Logs(r.Context(), q, func(line supervisor.LogLine) error {
		if err := lines.Encode(line); err != nil {
			return err
		}
		if q.Follow {
			return control.Flush()
		}
		return nil
	})
	if err != nil && r.Context().Err() == nil {
		lines.Encode(asError(err, CodeFailed))
	}
}

// parseLogQuery reads what query wrote. Beside that, replica=2 is of the only service.
func parseLogQuery(values url.Values) (supervisor.LogQuery, error) {
	q := supervisor.LogQuery{Tail: -1}
	replica := 0
	for name, all := range values {
		for _, value := range all {
			var err error
			switch name {
			case "service":
				q.Of = append(q.Of, supervisor.LogSource{Service: value})
			case "instance":
				var source supervisor.LogSource
				source, err = ParseLogSource(value)
				q.Of = append(q.Of, source)
			case "replica":
				replica, err = strconv.Atoi(value)
			case "tail":
				q.Tail, err = strconv.Atoi(value)
			case "follow":
				q.Follow, err = strconv.ParseBool(value)
			case "since":
				q.Since, err = time.Parse(time.RFC3339Nano, value)
			case "until":
				q.Until, err = time.Parse(time.RFC3339Nano, value)
			case "grep":
				q.Grep, err = regexp.Compile(value)
			case "after":
				err = parseAfter(&q, value)
			default:
				return q, newError(CodeUsage, "unknown parameter %q", name)
			}
			if err != nil {
				return q, newError(CodeUsage, "parameter %s: %q is no such value", name, value)
			}
		}
	}
	if replica < 0 {
		return q, newError(CodeUsage, "parameter replica: want a number from 1, or 0 for all")
	}
	if replica > 0 {
		if len(q.Of) != 1 || q.Of[0].Replica != 0 {
			return q, newError(CodeUsage, "parameter replica: of one service; name several as instance=web/2")
		}
		q.Of[0].Replica = replica
	}
	slices.SortFunc(q.Of, func(a, b supervisor.LogSource) int { return strings.Compare(a.String(), b.String()) })
	return q, nil
}

// ParseLogSource reads SERVICE or SERVICE/N.
func ParseLogSource(text string) (supervisor.LogSource, error) {
	service, number, one := strings.Cut(text, "/")
	source := supervisor.LogSource{Service: service}
	if one {
		var err error
		if source.Replica, err = strconv.Atoi(number); err != nil || source.Replica < 1 {
			return source, fmt.Errorf("%s: want SERVICE or SERVICE/N, as in web/2", text)
		}
	}
	if service == "" {
		return source, fmt.Errorf("%q: want SERVICE or SERVICE/N, as in web/2", text)
	}
	return source, nil
}

// parseAfter reads INSTANCE@TIME.
func parseAfter(q *supervisor.LogQuery, value string) error {
	instance, at, _ := strings.Cut(value, "@")
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return err
	}
	if q.After == nil {
		q.After = map[string]time.Time{}
	}
	q.After[instance] = t
	return nil
}

// query is parseLogQuery's other direction.
func query(q supervisor.LogQuery) url.Values {
	values := url.Values{
		"tail":   {strconv.Itoa(q.Tail)},
		"follow": {strconv.FormatBool(q.Follow)},
	}
	for _, source := range q.Of {
		name := "service"
		if source.Replica != 0 {
			name = "instance"
		}
		values.Add(name, source.String())
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			values.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	if q.Grep != nil {
		values.Set("grep", q.Grep.String())
	}
	for instance, t := range q.After {
		values.Add("after", instance+"@"+t.Format(time.RFC3339Nano))
	}
	return values
}
