package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/supervisor"
)

func (c *cli) triggerCommand() *cobra.Command {
	var wait waitFlags
	command := &cobra.Command{
		Use: "trigger JOB", Short: "Run a job now",
		Long: `Trigger runs a job now, beside its schedule. While a run is under way, the job's overlap says what
becomes of it: skip refuses it, queue lets it wait, replace stops the one under way.`,
		Example:           "  mainstay trigger report\n  mainstay trigger report --wait     # and exit 1 if it fails",
		Args:              takes(1, 1),
		ValidArgsFunction: c.completeServices,
		RunE: func(command *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			asked, err := client.Trigger(command.Context(), args[0])
			if err != nil {
				return err
			}
			if !c.json() {
				words := "runs"
				if asked.Run.Result == supervisor.RunQueued {
					words = "will run after the run under way"
				}
				fmt.Fprintf(c.Out, "%s: %s\n", asked.Service, words)
			}
			if wait.wait {
				if asked.Run, err = wait.awaitRun(command.Context(), client, asked); err != nil {
					return err
				}
				if !c.json() {
					fmt.Fprintf(c.Out, "%s: %s after %s\n", asked.Service, asked.Run.Result, lasted(asked.Run.Ended.Sub(asked.Run.Started)))
				}
			}
			if c.json() {
				return c.printJSON(asked)
			}
			return nil
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	wait.register(command, "the run has ended")
	return command
}

// awaitRun waits until the run that was asked for has ended, and returns it. It is an error if it has not succeeded.
func (w *waitFlags) awaitRun(ctx context.Context, client *admin.Client, asked *admin.Triggered) (supervisor.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		status, err := client.Status(ctx)
		if ctx.Err() != nil {
			return asked.Run, fail(ExitTimeout, "%s still runs after %s", asked.Service, w.timeout)
		}
		if err != nil {
			return asked.Run, err
		}
		service := status.Service(asked.Service)
		if service == nil || service.Job == nil {
			return asked.Run, fmt.Errorf("%s is no job any more", asked.Service)
		}
		run := find(service.Job, asked.Run.Due)
		switch {
		case run == nil && !service.Job.Queued:
			return asked.Run, fmt.Errorf("%s did not run: it was stopped or replaced before", asked.Service)
		case run == nil, run.Ended.IsZero():
		case run.Result != supervisor.RunSucceeded:
			return *run, errors.New(outcome(asked.Service, run))
		default:
			return *run, nil
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
}

// find returns the job's run that was due then, or nil.
func find(job *supervisor.JobStatus, due time.Time) *supervisor.Run {
	for i := range job.Runs {
		if job.Runs[i].Due.Equal(due) {
			return &job.Runs[i]
		}
	}
	return nil
}

// lasted shows a duration that may be short.
func lasted(d time.Duration) string {
	if d < 10*time.Second {
		return max(d, 0).Round(time.Millisecond).String()
	}
	return duration(d)
}

func outcome(service string, run *supervisor.Run) string {
	says := fmt.Sprintf("%s: %s", service, run.Result)
	if run.Cause != "" {
		says += ": " + run.Cause
	}
	return says
}

func jobsTable(s *admin.Status) *table {
	t := newTable("JOB", "STATE", "NEXT", "LAST", "RESULT", "TOOK", "ATTEMPTS", "SCHEDULE")
	for _, service := range s.Services {
		job := service.Job
		if job == nil {
			continue
		}
		next, last, result, took, attempts := "-", "-", "-", "-", "-"
		if !job.Next.IsZero() {
			next = "in " + duration(time.Until(job.Next))
		}
		if r := job.Last; r != nil {
			last, result, took, attempts = age(r.Ended)+" ago", string(r.Result), lasted(r.Ended.Sub(r.Started)), strconv.Itoa(r.Attempts)
		}
		schedule := job.Schedule
		if job.TimeZone != "" {
			schedule += " " + job.TimeZone
		}
		t.row(service.Name, service.State, next, last, result, took, attempts, schedule)
		if job.Queued {
			t.notes = append(t.notes, fmt.Sprintf("  %s: another run waits for the one under way", service.Name))
		}
		if job.Skipped > 0 {
			t.notes = append(t.notes, fmt.Sprintf("  %s: %d left out because a run was under way, the last %s ago", service.Name, job.Skipped, age(job.LastSkipped)))
		}
	}
	return t
}
