package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"mainstay/supervisor"
)

// why explains the service, or the one instance of it, that the query names.
func (a *api) why(_ http.ResponseWriter, r *http.Request) (any, error) {
	service, replica := "", 0
	for name, values := range r.URL.Query() {
		switch name {
		case "service":
			service = values[0]
		case "replica":
			n, err := strconv.Atoi(values[0])
			if err != nil || n < 1 {
				return nil, newError(CodeUsage, "parameter replica: %q is no number from 1", values[0])
			}
			replica = n
		default:
			return nil, newError(CodeUsage, "unknown parameter %q", name)
		}
	}
	if service == "" {
		return nil, newError(CodeUsage, "parameter service: which one?")
	}
	e, err := a.admin.rooms.Supervisor.Why(service, replica)
	if err != nil {
		return nil, newError(CodeNotFound, "%s", err)
	}
	return e, nil
}

// Why asks why a service, or one of its instances if replica is not 0, is as it is.
func (c *Client) Why(ctx context.Context, service string, replica int) (*supervisor.Explanation, error) {
	q := url.Values{"service": {service}}
	if replica != 0 {
		q.Set("replica", strconv.Itoa(replica))
	}
	return ask[supervisor.Explanation](ctx, c, "GET", "/v1/why?"+q.Encode(), nil)
}
