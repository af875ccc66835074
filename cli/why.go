package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/supervisor"
)

func (c *cli) whyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "why SERVICE[/N]",
		Short: "Explain why a service is as it is, and how its processes ended",
		Long: `Why says in one sentence how a service or one of its instances is doing and because of what: what it
waits for, what its probes were answered, and of each process that ended by itself how that came, its
last words, its peak memory and the requests that were at it. The last ten of each instance are kept.`,
		Example: `  mainstay why web
  mainstay why web/2
  mainstay why web/2 -o json | jq -r '.instances[0].postmortems[0].output[].text'`,
		Args:              takes(1, 1),
		ValidArgsFunction: c.completeServices,
		RunE: func(command *cobra.Command, args []string) error {
			of, err := admin.ParseLogSource(args[0])
			if err != nil {
				return fail(ExitUsage, "%w", err)
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			e, err := client.Why(command.Context(), of.Service, of.Replica)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(e)
			}
			printWhy(c.Out, e)
			return nil
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	return command
}

// printWhy prints e as a page for people.
func printWhy(w io.Writer, e *supervisor.Explanation) {
	fmt.Fprintln(w, plain(e.Sentence)+".")
	for _, d := range e.Dependencies {
		if !d.Met {
			fmt.Fprintf(w, "  it %s\n", plain(d.Why))
		}
	}
	for _, i := range e.Instances {
		fmt.Fprintln(w)
		if i.Sentence != e.Sentence {
			fmt.Fprintln(w, plain(i.Sentence)+".")
		}
		facts := newTable("INSTANCE", "STATE", "FOR", "PID", "ADDRESS", "RESTARTS", "GENERATION")
		pid := "-"
		if i.PID != 0 {
			pid = strconv.Itoa(i.PID)
		}
		state := string(i.State)
		if i.CrashLoop {
			state += ", crash loop"
		}
		facts.row(i.ID, state, age(i.Since), pid, dash(i.Address), strconv.Itoa(i.Restarts), strconv.Itoa(i.Generation))
		if i.Status != "" {
			facts.notes = append(facts.notes, "  it says: "+plain(i.Status))
		}
		facts.print(w)
		if i.PID != 0 && i.State != supervisor.StateReady {
			printAnswers(w, i.Probes)
			printWords(w, i.Output)
		}
		if len(i.Postmortems) > 0 {
			printPostmortem(w, i.Postmortems[0])
			printEarlier(w, i.Postmortems[1:])
		}
	}
}

// printPostmortem prints all that is known of one end.
func printPostmortem(w io.Writer, p supervisor.Postmortem) {
	fmt.Fprintf(w, "\nThe last end, %s ago:\n", age(p.Ended))
	fact := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-20s %s\n", name, fmt.Sprintf(format, args...))
	}
	why, _, _ := strings.Cut(p.Why, "\n")
	fact("why", "%s", plain(why))
	fact("cause", "%s", p.Cause)
	if p.Exit != "" {
		fact("how it ended", "%s", p.Exit)
	}
	fact("when", "%s", p.Ended.Local().Format(time.DateTime))
	if p.PID != 0 {
		fact("ran for", "%s, as pid %d of generation %d", time.Duration(p.Ran*float64(time.Second)).Round(time.Millisecond), p.PID, p.Generation)
		fact("requests in flight", "%d", p.InFlight)
	}
	if p.Memory > 0 {
		fact("peak memory", "%s", size(uint64(p.Memory)))
	}
	if p.Told != "" {
		fact("it said", "%s", plain(p.Told))
	}
	printAnswers(w, p.Probes)
	printWords(w, p.Output)
}

func printAnswers(w io.Writer, results []supervisor.ProbeResult) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintln(w, "  Its probes were answered:")
	for _, r := range results {
		answer := "good"
		if r.Answer != "" {
			answer = plain(r.Answer)
		}
		took := time.Duration(r.Took * float64(time.Second)).Round(10 * time.Microsecond)
		fmt.Fprintf(w, "    %s  %-9s  %s (%s)\n", r.Time.Local().Format("15:04:05.000"), r.Probe, answer, took)
	}
}

func printWords(w io.Writer, lines []supervisor.LogLine) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(w, "  Its last words:")
	for _, l := range lines {
		fmt.Fprintf(w, "    %s  %s  %s\n", l.Time.Local().Format("15:04:05.000"), l.Stream, plain(l.Text))
	}
}

// printEarlier prints a line of each of the ends before the last.
func printEarlier(w io.Writer, list []supervisor.Postmortem) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w, "\nBefore that:")
	t := newTable("ENDED", "CAUSE", "RAN", "PID", "GENERATION", "WHY")
	for _, p := range list {
		first, _, _ := strings.Cut(p.Why, "\n")
		why := []rune(plain(first))
		if len(why) > 100 {
			why = append(why[:99], '…')
		}
		ran := time.Duration(p.Ran * float64(time.Second)).Round(time.Millisecond)
		t.row(age(p.Ended)+" ago", p.Cause, ran.String(), strconv.Itoa(p.PID), strconv.Itoa(p.Generation), string(why))
	}
	t.print(w)
}
