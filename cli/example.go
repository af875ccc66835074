package cli

import (
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"mainstay/cli/shop"
)

// exampleServiceCommand runs one service of the example. It is hidden: only the example's topology uses it.
func (c *cli) exampleServiceCommand() *cobra.Command {
	var listen, data, publish, subscribe string
	web := &cobra.Command{
		Use: "web", Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			return shop.Web(ctx, c.exampleLog(), listen, instance("web"), or(os.Getenv("GREETING"), "hello"))
		},
	}
	orders := &cobra.Command{
		Use: "orders", Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			return shop.Orders(ctx, c.exampleLog(), listen, data, publish)
		},
	}
	mailer := &cobra.Command{
		Use: "mailer", Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			return shop.Mailer(ctx, c.exampleLog(), subscribe)
		},
	}
	for _, command := range []*cobra.Command{web, orders} {
		address := net.JoinHostPort(or(os.Getenv("HOST"), "127.0.0.1"), or(os.Getenv("PORT"), "8081"))
		command.Flags().StringVar(&listen, "listen", address, "`ADDRESS` to answer requests at")
	}
	orders.Flags().StringVar(&data, "data", ".", "`DIR` that the orders are kept in")
	orders.Flags().StringVar(&publish, "publish", "", "bus `ENDPOINT` that is told of each order")
	mailer.Flags().StringVar(&subscribe, "subscribe", "tcp://127.0.0.1:5557", "bus `ENDPOINT` to hear of orders at")

	g := group("example-service", "Run one service of the built-in example", "", "", web, orders, mailer)
	g.Hidden = true
	return g
}

func (c *cli) exampleLog() *slog.Logger { return slog.New(slog.NewTextHandler(c.Err, nil)) }

// instance names this process as Mainstay does, "web/2", or by its service's name when it runs alone.
func instance(service string) string {
	replica := os.Getenv("MAINSTAY_REPLICA")
	if replica == "" {
		return service
	}
	return or(os.Getenv("MAINSTAY_SERVICE"), service) + "/" + replica
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
