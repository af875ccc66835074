package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"mainstay/backup"
	"mainstay/engine"
	"mainstay/supervisor"
)

// ErrUnreachable says that nothing answers on the socket.
var ErrUnreachable = errors.New("no supervisor reachable")

// A Client asks a running Mainstay. Its methods return an *[Error] when Mainstay does
// not do what it was asked for, and ErrUnreachable when there is none. They are safe for concurrent use.
type Client struct {
	http http.Client
}

// NewClient returns a Client of the API on the socket at path. It connects when it is used.
func NewClient(path string) *Client {
	return &Client{http: http.Client{Transport: &http.Transport{
		// Each request has its own connection: a command makes few, and a
		// Mainstay that has gone is then noticed at once.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
			if err != nil && ctx.Err() == nil {
				return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
			}
			return conn, err
		},
	}}}
}

// Status asks what runs.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return ask[Status](ctx, c, "GET", "/v1/status", nil)
}

// Plan asks what a reload would change.
func (c *Client) Plan(ctx context.Context) (*Plan, error) {
	return ask[Plan](ctx, c, "GET", "/v1/plan", nil)
}

// Reload has the file read again and applied.
func (c *Client) Reload(ctx context.Context) (*engine.Outcome, error) {
	return ask[engine.Outcome](ctx, c, "POST", "/v1/reload", nil)
}

// Rollback has a kept generation applied again; 0 is the newest that says something else than the one that runs.
func (c *Client) Rollback(ctx context.Context, generation int) (*engine.Outcome, error) {
	return ask[engine.Outcome](ctx, c, "POST", "/v1/rollback", rollbackRequest{generation})
}

// Upgrade has another program go on in Mainstay's place. It returns when that has begun; Status tells how it ends.
func (c *Client) Upgrade(ctx context.Context, q UpgradeRequest) (*Upgrade, error) {
	return ask[Upgrade](ctx, c, "POST", "/v1/upgrade", q)
}

// Generations asks which generations are kept, newest first.
func (c *Client) Generations(ctx context.Context) ([]engine.Kept, error) {
	list, err := ask[[]engine.Kept](ctx, c, "GET", "/v1/generations", nil)
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// Restart has every instance of a service replaced once.
func (c *Client) Restart(ctx context.Context, service string) (*Overridden, error) {
	return ask[Overridden](ctx, c, "POST", "/v1/restart", serviceRequest{service})
}

// Stop has a service stopped until Start or the end of Mainstay.
func (c *Client) Stop(ctx context.Context, service string) (*Overridden, error) {
	return ask[Overridden](ctx, c, "POST", "/v1/stop", serviceRequest{service})
}

// Start undoes Stop.
func (c *Client) Start(ctx context.Context, service string) (*Overridden, error) {
	return ask[Overridden](ctx, c, "POST", "/v1/start", serviceRequest{service})
}

// Scale changes how many replicas a service has until its replicas in the file change.
func (c *Client) Scale(ctx context.Context, service string, replicas int) (*Overridden, error) {
	return ask[Overridden](ctx, c, "POST", "/v1/scale", scaleRequest{service, &replicas})
}

// Trigger has a job run now.
func (c *Client) Trigger(ctx context.Context, job string) (*Triggered, error) {
	return ask[Triggered](ctx, c, "POST", "/v1/trigger", serviceRequest{job})
}

// Backup has a snapshot taken and waits for it.
func (c *Client) Backup(ctx context.Context, name string) (*backup.Snapshot, error) {
	return ask[backup.Snapshot](ctx, c, "POST", "/v1/backup/now", backupRequest{name})
}

// Logs calls emit with each line that q selects, until there is no more or, following, until
// ctx is done or Mainstay stops, and returns nil then, or emit's error.
func (c *Client) Logs(ctx context.Context, q supervisor.LogQuery, emit func(supervisor.LogLine) error) error {
	response, err := c.do(ctx, "GET", "/v1/logs?"+query(q).Encode(), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := json.NewDecoder(bufio.NewReader(response.Body))
	for {
		var line struct {
			supervisor.LogLine
			Error
		}
		err := lines.Decode(&line)
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("read logs: the connection was lost: %w", err)
		case err != nil:
			return fmt.Errorf("read logs: %w", err)
		case line.Error.Code != "":
			return &line.Error
		}
		if err := emit(line.LogLine); err != nil {
			return err
		}
	}
}

// ask sends one request and returns the answer as a T.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer := new(T)
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return nil, fmt.Errorf("read answer to %s %s: %w", method, path, err)
	}
	return answer, nil
}

// do sends one request and returns its response, whose status is 200.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	content := []byte("{}")
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	if method == http.MethodGet {
		content = nil
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://mainstay"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err // the URL that it would name is not the user's
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil, fmt.Errorf("it ended, or was upgraded, before it answered; 'mainstay status' tells whether it was done: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	refusal := new(Error)
	if err := json.NewDecoder(response.Body).Decode(refusal); err != nil || refusal.Code == "" {
		return nil, fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	return nil, refusal
}
