package admin

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

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
	service, ok := a.engine.Topology().Services[q.Service]
	if !ok {
		writeError(w, newError(CodeNotFound, "no service %q", q.Service))
		return
	}
	if len(service.External) > 0 {
		writeError(w, newError(CodeNotFound, "service %q runs elsewhere: its output is not here", q.Service))
		return
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

func parseLogQuery(values url.Values) (supervisor.LogQuery, error) {
	q := supervisor.LogQuery{Tail: -1}
	for name := range values {
		value := values.Get(name)
		var err error
		switch name {
		case "service":
			q.Service = value
		case "replica":
			q.Replica, err = strconv.Atoi(value)
		case "tail":
			q.Tail, err = strconv.Atoi(value)
		case "follow":
			q.Follow, err = strconv.ParseBool(value)
		default:
			return q, newError(CodeUsage, "unknown parameter %q", name)
		}
		if err != nil {
			return q, newError(CodeUsage, "parameter %s: %q is no such value", name, value)
		}
	}
	if q.Replica < 0 {
		return q, newError(CodeUsage, "parameter replica: want a number from 1, or 0 for all")
	}
	return q, nil
}

// query is parseLogQuery's other direction.
func query(q supervisor.LogQuery) url.Values {
	return url.Values{
		"service": {q.Service},
		"replica": {strconv.Itoa(q.Replica)},
		"tail":    {strconv.Itoa(q.Tail)},
		"follow":  {strconv.FormatBool(q.Follow)},
	}
}
