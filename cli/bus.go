package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"mainstay/bus"
	"mainstay/topology"
)

func (c *cli) busCommand() *cobra.Command {
	return group("bus", "Publish and read messages, or relay them",
		`A relay of the topology is named by its name; any other ZeroMQ endpoint by its address, tcp://host:port.`,
		`  mainstay bus sub events orders.
  mainstay bus pub events orders.created '{"item": "tea"}'
  mainstay bus relay tcp://127.0.0.1:5556 tcp://127.0.0.1:5557`,
		c.busPubCommand(), c.busSubCommand(), c.busRelayCommand())
}

// endpoint returns the address that arg names: itself, or that of a relay of the topology.
func (c *cli) endpoint(arg string, side func(topology.Relay) string) (string, error) {
	if strings.Contains(arg, "://") {
		return arg, nil
	}
	files, err := c.read()
	if err != nil {
		return "", err
	}
	t, problems := topology.Parse(files)
	if problems.Failed() {
		return "", problems
	}
	relay, ok := t.Bus[arg]
	if !ok {
		return "", fmt.Errorf("no relay %q in %s; an endpoint is written tcp://host:port", arg, c.names(files))
	}
	// What a relay binds on every interface is reached on this one.
	return strings.Replace(side(relay), "://*:", "://127.0.0.1:", 1), nil
}

func (c *cli) busPubCommand() *cobra.Command {
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "pub RELAY|ENDPOINT [TOPIC [BODY...]]",
		Short: "Publish messages",
		Long: `Pub publishes one message of the frames TOPIC and BODY..., or, without TOPIC, one for each line of stdin, whose first
word is the topic and whose rest, if any, is the body. It waits for the other side to subscribe before it sends.`,
		Example: `  mainstay bus pub events orders.created '{"item": "tea"}'
  mainstay bus pub tcp://127.0.0.1:5556 state.web ready
  tail -f orders.ndjson | sed 's/^/orders.created /' | mainstay bus pub events`,
		Args: takes(1, -1),
		RunE: func(command *cobra.Command, args []string) error {
			endpoint, err := c.endpoint(args[0], func(r topology.Relay) string { return r.Publishers })
			if err != nil {
				return err
			}
			next := oneMessage(args[1:])
			if len(args) == 1 {
				next = messagesOf(c.In)
			}
			return publish(command.Context(), endpoint, timeout, next)
		},
	}
	c.takesFiles(command)
	command.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to `WAIT` for the other side to connect and subscribe")
	return command
}

// A nextMessage returns one message after the other, and nil after the last.
type nextMessage func() ([][]byte, error)

// oneMessage has words as the frames of its only message.
func oneMessage(words []string) nextMessage {
	var message [][]byte
	for _, word := range words {
		message = append(message, []byte(word))
	}
	return func() ([][]byte, error) {
		this := message
		message = nil
		return this, nil
	}
}

// messagesOf has a message for each line of r.
func messagesOf(r io.Reader) nextMessage {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	return func() ([][]byte, error) {
		for lines.Scan() {
			topic, body, hasBody := strings.Cut(strings.TrimRight(lines.Text(), "\r"), " ")
			switch {
			case hasBody:
				return [][]byte{[]byte(topic), []byte(body)}, nil
			case topic != "":
				return [][]byte{[]byte(topic)}, nil
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read messages: %w", err)
		}
		return nil, nil
	}
}

// publish sends what next has to endpoint. timeout bounds how long the other side may take until it is ready.
func publish(ctx context.Context, endpoint string, timeout time.Duration, next nextMessage) error {
	late := fail(ExitTimeout, "nobody subscribes at %s after %s", endpoint, timeout)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(timeout, func() { cancel(late) })
	defer limit.Stop()
	err := bus.Publish(ctx, endpoint, func() ([][]byte, error) {
		limit.Stop()
		return next()
	})
	if context.Cause(ctx) == late {
		return late
	}
	return err
}

func (c *cli) busSubCommand() *cobra.Command {
	var limit int
	command := &cobra.Command{
		Use:   "sub RELAY|ENDPOINT [PREFIX...]",
		Short: "Print messages as they come",
		Long: `Sub prints each message whose topic begins with one of the prefixes, or every message without any, until Ctrl-C: its
frames with a space between them, those that are no plain text quoted. -o json gives one object
a line: {"frames": [...]}, or {"base64": [...]} if a frame is no UTF-8.`,
		Example: `  mainstay bus sub events orders.
  mainstay bus sub tcp://127.0.0.1:5557 -o json | jq -r '.frames[0]'`,
		Args: takes(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			endpoint, err := c.endpoint(args[0], func(r topology.Relay) string { return r.Subscribers })
			if err != nil {
				return err
			}
			seen := 0
			err = bus.Subscribe(ctx, endpoint, args[1:], func(frames [][]byte) error {
				if err := c.printFrames(frames); err != nil {
					return err
				}
				if seen++; seen == limit {
					return errEnough
				}
				return nil
			})
			if errors.Is(err, errEnough) || ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	command.Flags().IntVarP(&limit, "count", "n", 0, "stop after `N` messages; 0 for no limit")
	return command
}

// errEnough ends a subscription that has printed as many messages as it was to.
var errEnough = errors.New("enough messages")

func (c *cli) printFrames(frames [][]byte) error {
	if !c.json() {
		var words []string
		for _, frame := range frames {
			words = append(words, printable(frame))
		}
		_, err := fmt.Fprintln(c.Out, strings.Join(words, " "))
		return err
	}
	var text, encoded []string
	isText := true
	for _, frame := range frames {
		isText = isText && utf8.Valid(frame)
		text = append(text, string(frame))
		encoded = append(encoded, base64.StdEncoding.EncodeToString(frame))
	}
	if isText {
		return c.printJSONLine(map[string][]string{"frames": text})
	}
	return c.printJSONLine(map[string][]string{"base64": encoded})
}

// printable returns a frame as it is, or quoted if a terminal could not show it.
func printable(frame []byte) string {
	text := string(frame)
	if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	return strconv.Quote(text)
}
