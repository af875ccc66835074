package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mainstay/supervisor"
)

func (c *cli) logsCommand() *cobra.Command {
	var q supervisor.LogQuery
	command := &cobra.Command{
		Use:   "logs [-f] SERVICE[/N]",
		Short: "Show what a service prints",
		Long: `Logs prints the lines that a service's instances have written to stdout and stderr, oldest first. Those of
several instances are told apart by the name before each line. -o json gives one object
a line: {time, instance, stream, text}.`,
		Example: `  mainstay logs web
  mainstay logs -f web/2 --tail 20
  mainstay logs web -o json | jq -r 'select(.stream == "stderr").text'`,
		Args:              takes(1, 1),
		ValidArgsFunction: c.completeServices,
		RunE: func(_ *cobra.Command, args []string) error {
			var err error
			if q.Service, q.Replica, err = parseInstance(args[0]); err != nil {
				return err
			}
			return c.logs(q)
		},
	}
	command.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	command.Flags().IntVar(&q.Tail, "tail", -1, "begin with the last `N` lines of each instance; -1 for all that are kept")
	c.takesFiles(command)
	c.givesOutput(command)
	return command
}

// parseInstance reads SERVICE or SERVICE/N; the replica is 0 for all.
func parseInstance(arg string) (service string, replica int, err error) {
	service, number, one := strings.Cut(arg, "/")
	if one {
		replica, err = strconv.Atoi(number)
		if err != nil || replica < 1 {
			return "", 0, fail(ExitUsage, "%s: want SERVICE or SERVICE/N, as in web/2", arg)
		}
	}
	return service, replica, nil
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
	service := status.Service(q.Service)
	several := service != nil && q.Replica == 0 && max(service.Desired, len(service.Instances)) > 1
	return client.Logs(ctx, q, func(line supervisor.LogLine) error {
		var err error
		switch {
		case c.json():
			err = c.printJSONLine(line)
		case several:
			_, err = fmt.Fprintf(c.Out, "%s | %s\n", line.Instance, line.Text)
		default:
			_, err = fmt.Fprintln(c.Out, line.Text)
		}
		return err
	})
}
