package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mainstay/admin"
)

// A serviceVerb is a command that changes services at run time.
type serviceVerb struct {
	use, short, long, example string
	args                      cobra.PositionalArgs // nil: one or more names
	do                        func(ctx context.Context, client *admin.Client, arg string) (*admin.Overridden, error)
	done                      string // what is said of a service afterwards
	waits                     bool   // unless --wait=false says otherwise
}

const untilTheEnd = "\nThe file is not changed: it holds until Mainstay stops or the service's replicas change in the file."

func (c *cli) startCommand() *cobra.Command {
	return c.serviceCommand(serviceVerb{
		use: "start SERVICE...", short: "Start services that were stopped", long: "Start undoes stop.",
		example: "  mainstay start mailer\n  mainstay start web orders --wait",
		done:    "started",
		do: func(ctx context.Context, client *admin.Client, service string) (*admin.Overridden, error) {
			return client.Start(ctx, service)
		},
	})
}

func (c *cli) stopCommand() *cobra.Command {
	return c.serviceCommand(serviceVerb{
		use: "stop SERVICE...", short: "Stop services until they are started again",
		long: `Stop lets the requests in flight finish and stops all instances of a service. It returns when
nothing of them is left, or with --wait=false at once.` + untilTheEnd,
		example: "  mainstay stop mailer\n  mainstay start mailer       # undo",
		done:    "stopped", waits: true,
		do: func(ctx context.Context, client *admin.Client, service string) (*admin.Overridden, error) {
			return client.Stop(ctx, service)
		},
	})
}

func (c *cli) restartCommand() *cobra.Command {
	return c.serviceCommand(serviceVerb{
		use: "restart SERVICE...", short: "Replace every instance of services",
		long: `Restart replaces every instance of a service as a changed command would: one after the other,
by its update order, with requests drained first.`,
		example: "  mainstay restart web\n  mainstay restart web --wait",
		done:    "is being replaced",
		do: func(ctx context.Context, client *admin.Client, service string) (*admin.Overridden, error) {
			return client.Restart(ctx, service)
		},
	})
}

func (c *cli) scaleCommand() *cobra.Command {
	return c.serviceCommand(serviceVerb{
		use: "scale SERVICE=N...", short: "Change how many replicas services have",
		long:    "Scale starts or drains exactly the difference." + untilTheEnd,
		example: "  mainstay scale web=5\n  mainstay scale web=5 orders=1 --wait",
		args:    takesScales,
		done:    "scaled",
		do: func(ctx context.Context, client *admin.Client, arg string) (*admin.Overridden, error) {
			service, replicas, err := parseScale(arg)
			if err != nil {
				return nil, err
			}
			return client.Scale(ctx, service, replicas)
		},
	})
}

// takesScales refuses arguments that are no SERVICE=N.
func takesScales(command *cobra.Command, args []string) error {
	for _, arg := range args {
		if _, _, err := parseScale(arg); err != nil {
			return err
		}
	}
	return takes(1, -1)(command, args)
}

// parseScale reads SERVICE=N.
func parseScale(arg string) (service string, replicas int, err error) {
	service, number, _ := strings.Cut(arg, "=")
	replicas, err = strconv.Atoi(number)
	if err != nil || replicas < 0 || service == "" {
		return "", 0, fmt.Errorf("%s: want SERVICE=N, as in web=3", arg)
	}
	return service, replicas, nil
}

func (c *cli) serviceCommand(v serviceVerb) *cobra.Command {
	var wait waitFlags
	if v.args == nil {
		v.args = takes(1, -1)
	}
	command := &cobra.Command{
		Use: v.use, Short: v.short, Long: v.long, Example: v.example,
		Args:              v.args,
		ValidArgsFunction: c.completeServices,
		RunE: func(command *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			var done []*admin.Overridden
			var services []string
			for _, arg := range args {
				answer, err := v.do(command.Context(), client, arg)
				if err != nil {
					return err
				}
				done, services = append(done, answer), append(services, answer.Service)
				if !c.json() {
					c.printOverridden(v.done, answer)
				}
			}
			if err := wait.await(command.Context(), c.progressOut(), client, services...); err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(done)
			}
			return nil
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	wait.register(command, "it is ready")
	if wait.wait = v.waits; v.waits {
		command.Flags().Lookup("wait").DefValue = "true"
	}
	return command
}

func (c *cli) printOverridden(done string, o *admin.Overridden) {
	if o.Override == "" {
		fmt.Fprintf(c.Out, "%s: %s\n", o.Service, done)
		return
	}
	fmt.Fprintf(c.Out, "%s: %s; over the file: %s\n", o.Service, done, o.Override)
}

// completeServices completes the names of the services that run.
func (c *cli) completeServices(command *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	client, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	status, err := client.Status(command.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, s := range status.Services {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
