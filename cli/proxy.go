package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mainstay/admin"
)

func (c *cli) proxyCommand() *cobra.Command {
	var logs logFlags
	var listen string
	var to []string
	command := &cobra.Command{
		Use:   "proxy --listen ADDRESS --to ADDRESS...",
		Short: "Balance requests between servers, without a topology",
		Long: `Proxy sends each HTTP request to the least busy of the servers that accept connections, until Ctrl-C.
What is more than that (routes, TLS, timeouts) is said in a topology with an external service.`,
		Example: `  mainstay proxy --listen 127.0.0.1:8000 --to 127.0.0.1:9001 --to 127.0.0.1:9002
  mainstay proxy --listen :8000 --to 10.0.0.5:80,10.0.0.6:80`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if listen == "" || len(to) == 0 {
				return fail(ExitUsage, "proxy needs --listen ADDRESS and at least one --to ADDRESS")
			}
			return c.runStatic(logs, map[string]any{
				"services": map[string]any{"upstream": map[string]any{"external": to}},
				"proxy": map[string]any{
					"listeners": map[string]any{"http": map[string]any{"address": listen}},
					"routes":    []any{map[string]any{"service": "upstream"}},
				},
			}, func(s admin.Status) {
				for _, l := range s.Proxy.Listeners {
					fmt.Fprintf(c.Out, "%s sends requests to %s\n", url(l.Address, l.TLS), strings.Join(to, ", "))
				}
			})
		},
	}
	command.Flags().StringVar(&listen, "listen", "", "`ADDRESS` (host:port) to accept requests on; without a host on every interface")
	command.Flags().StringSliceVar(&to, "to", nil, "`ADDRESS` (host:port) of a server; repeat it or separate several by commas")
	logs.register(command)
	return command
}
