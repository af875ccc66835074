package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"mainstay/admin"
)

func (c *cli) busRelayCommand() *cobra.Command {
	var logs logFlags
	command := &cobra.Command{
		Use:   "relay PUBLISHERS SUBSCRIBERS",
		Short: "Relay messages between two addresses, without a topology",
		Long: `Relay runs one ZeroMQ XSUB/XPUB relay until Ctrl-C. Publishers connect to the first address, subscribers to the
second; the host * is every interface.`,
		Example: `  mainstay bus relay tcp://127.0.0.1:5556 tcp://127.0.0.1:5557
  mainstay bus relay 'tcp://*:5556' 'tcp://*:5557'`,
		Args: takes(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.runStatic(logs, map[string]any{
				"bus": map[string]any{
					"relay": map[string]any{"publishers": args[0], "subscribers": args[1]},
				},
			}, func(s admin.Status) {
				for _, relay := range s.Bus {
					fmt.Fprintf(c.Out, "publish to %s, subscribe to %s\n", relay.Publishers.Address, relay.Subscribers.Address)
				}
			})
		},
	}
	logs.register(command)
	return command
}
