package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/supervisor"
)

func (c *cli) logsCommand() *cobra.Command {
	var q supervisor.LogQuery
	var since, until, grep string
	var instances []string
	command := &cobra.Command{
		Use:   "logs [-f] [SERVICE[/N]...]",
		Short: "Show what services print",
		Long: `Logs prints the lines that instances have written to stdout and stderr, oldest first: those of the services and
instances that are named, or of all. Lines of several instances are told apart by the name before each. -o json gives one object
a line: {time, instance, stream, text}.

-f goes on with new lines, also when the service or Mainstay itself is restarted.

--since and --until take a duration before now (10m, 2d), a time of today (15:04 or 15:04:05), or a date (2006-01-02,
"2006-01-02 15:04", RFC 3339). --grep takes a regular expression (https://go.dev/s/re2syntax); with it, --tail counts
the lines that match. A line of more than 16 KiB is searched piece by piece.`,
		Example: `  mainstay logs web
  mainstay logs -f web/2 orders --tail 20
  mainstay logs --since 10m --grep '(?i)error|panic'
  mainstay logs web -o json | jq -r 'select(.stream == "stderr").text'`,
		Args:              takes(0, -1),
		ValidArgsFunction: c.completeServices,
		RunE: func(_ *cobra.Command, args []string) error {
			for _, arg := range append(args, instances...) {
				source, err := admin.ParseLogSource(arg)
				if err != nil {
					return fail(ExitUsage, "%s", err)
				}
				q.Of = append(q.Of, source)
			}
			var err error
			now := time.Now()
			if q.Since, err = parseTime(since, now); err != nil {
				return fail(ExitUsage, "--since %s: %s", since, err)
			}
			if q.Until, err = parseTime(until, now); err != nil {
				return fail(ExitUsage, "--until %s: %s", until, err)
			}
			if grep != "" {
				if q.Grep, err = regexp.Compile(grep); err != nil {
					return fail(ExitUsage, "--grep %s: %s", grep, err)
				}
			}
			return c.logs(q)
		},
	}
	flags := command.Flags()
	flags.BoolVarP(&q.Follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	flags.IntVar(&q.Tail, "tail", -1, "begin with the last `N` lines of each instance; -1 for all that are kept")
	flags.StringVar(&since, "since", "", "only lines from that `TIME` on: 10m for ten minutes ago, 15:04, 2006-01-02, RFC 3339")
	flags.StringVar(&until, "until", "", "only lines up to that `TIME`")
	flags.StringVar(&grep, "grep", "", "only lines that `REGEXP` matches")
	flags.StringArrayVar(&instances, "instance", nil, "only `SERVICE/N`, as if it were an argument; may be repeated")
	c.takesFiles(command)
	c.givesOutput(command)
	return command
}

// parseTime reads a duration before now, or a time in this machine's time zone. Nothing is the zero time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			y, m, d := now.Local().Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.Local), nil
		}
	}
	return time.Time{}, errors.New(`want a duration before now like 10m or 2d, or a time like 15:04, 2006-01-02 or "2006-01-02 15:04"`)
}

func (c *cli) logs(q supervisor.LogQuery) error {
	ctx, stop := untilInterrupted()
	defer stop()
	client, err := c.client()
	if err != nil {
		return err
	}
	status, err := client.Status(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	named := severalInstances(status, q)
	show := func(line supervisor.LogLine) error {
		var err error
		switch {
		case c.json():
			err = c.printJSONLine(line)
		case named:
			_, err = fmt.Fprintf(c.Out, "%s | %s\n", line.Instance, line.Text)
		default:
			_, err = fmt.Fprintln(c.Out, line.Text)
		}
		return err
	}
	if !q.Follow {
		return client.Logs(ctx, q, show)
	}
	f := &following{cli: c, client: client, query: q, show: show, begun: time.Now()}
	return f.run(ctx)
}

// severalInstances reports whether lines of more than one instance can be among those that q asks for.
func severalInstances(s *admin.Status, q supervisor.LogQuery) bool {
	if len(q.Of) != 1 {
		return true
	}
	service := s.Service(q.Of[0].Service)
	return service != nil && q.Of[0].Replica == 0 && max(service.Desired, len(service.Instances)) > 1
}

const (
	comeBack  = time.Minute            // for how long a Mainstay that has gone is waited for
	reappear  = 3 * time.Second        // for how long a service that it does not have is: it may have just begun
	reconnect = 200 * time.Millisecond // between two tries
)

// A following shows lines and, when the connection is lost, because Mainstay is restarted or upgraded, goes on after the last that
// it has shown.
type following struct {
	*cli
	client *admin.Client
	query  supervisor.LogQuery
	show   func(supervisor.LogLine) error
	begun  time.Time

	broken error // of show
	lost   time.Time
	told   bool // that Mainstay is waited for
}

func (f *following) run(ctx context.Context) error {
	err := f.client.Logs(ctx, f.query, f.take)
	if refused := new(admin.Error); errors.As(err, &refused) {
		return err
	}
	// From here on nothing before now is asked for, but what comes after the lines that were shown.
	f.query.Tail = -1
	if f.query.Since.Before(f.begun) {
		f.query.Since = f.begun
	}
	f.lost = time.Now()
	for {
		if ctx.Err() != nil || f.broken != nil || !f.query.Until.IsZero() && time.Now().After(f.query.Until) {
			return f.broken
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnect):
		}
		err := f.client.Logs(ctx, f.query, f.take)
		gone, refused := time.Since(f.lost), new(admin.Error)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, admin.ErrUnreachable):
			if gone > comeBack {
				return err
			}
			if gone > reappear && !f.told {
				fmt.Fprintln(f.Err, "mainstay: waits for Mainstay to come back")
				f.told = true
			}
		case !errors.As(err, &refused): // the connection was lost again
			f.lost, f.told = time.Now(), false
		case gone <= reappear:
		case refused.Code == admin.CodeNotFound:
			return nil // it was removed
		default:
			return err
		}
	}
}

// take shows a line and remembers where to go on.
func (f *following) take(line supervisor.LogLine) error {
	if f.broken = f.show(line); f.broken != nil {
		return f.broken
	}
	if line.Stream != "mainstay" { // which is in no file
		if f.query.After == nil {
			f.query.After = map[string]time.Time{}
		}
		f.query.After[line.Instance] = line.Time
	}
	return nil
}
