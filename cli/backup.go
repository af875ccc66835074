package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mainstay/backup"
	"mainstay/topology"
)

func (c *cli) backupCommand() *cobra.Command {
	return group("backup", "Take, list and restore snapshots",
		`Snapshots lie in repositories in restic's format: stock restic lists and restores them too.
Each command works for a backup that the topology names, or with --repository and --password-file for any.`,
		`  mainstay backup now orders
  mainstay backup list orders
  mainstay backup restore orders latest --target /tmp/orders`,
		c.backupNowCommand(), c.backupListCommand(), c.backupRestoreCommand())
}

// repositoryFlags name a repository that no topology needs to know.
type repositoryFlags struct{ repository, passwordFile string }

func (r *repositoryFlags) register(command *cobra.Command) {
	command.Flags().StringVar(&r.repository, "repository", "", "`REPOSITORY` to use instead of the topology's: s3://bucket/prefix, file:///path or a path")
	command.Flags().StringVar(&r.passwordFile, "password-file", "", "`FILE` that holds the repository's password")
	command.MarkFlagFilename("password-file")
}

// given reports whether the flags are used, and what is wrong with them.
func (r *repositoryFlags) given() (bool, error) {
	if r.repository == "" && r.passwordFile == "" {
		return false, nil
	}
	if r.repository == "" || r.passwordFile == "" {
		return false, fail(ExitUsage, "--repository and --password-file go together")
	}
	return true, nil
}

// spec returns the backup of paths into the repository that the flags name.
func (r *repositoryFlags) spec(paths []string) (topology.Backup, error) {
	spec := topology.Backup{Name: "by-hand", Repository: r.repository}
	var err error
	if spec.PasswordFile, err = filepath.Abs(r.passwordFile); err != nil {
		return spec, err
	}
	path, isFile := strings.CutPrefix(r.repository, "file://")
	if isFile || !resemblesURL(r.repository) {
		if path, err = filepath.Abs(path); err != nil {
			return spec, err
		}
		spec.Repository = "file://" + path
	}
	for _, path := range paths {
		if path, err = filepath.Abs(path); err != nil {
			return spec, err
		}
		spec.Paths = append(spec.Paths, path)
	}
	return spec, nil
}

// resemblesURL tells whether text begins as a URL does, or as those repositories of restic that are no path. A path with a colon in its first
// element is to be written with ./ before it.
func resemblesURL(text string) bool {
	scheme, _, ok := strings.Cut(text, ":")
	return ok && scheme != "" && strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-") == ""
}

// backupSpec returns the backup that a command is about, and the arguments that are left: the first
// one names a backup of the topology unless the flags name a repository.
func (c *cli) backupSpec(r repositoryFlags, args []string) (topology.Backup, []string, error) {
	direct, err := r.given()
	if err != nil {
		return topology.Backup{}, nil, err
	}
	if direct {
		spec, err := r.spec(nil)
		return spec, args, err
	}
	if len(args) == 0 {
		return topology.Backup{}, nil, fail(ExitUsage, "name a backup of the topology, or a repository with --repository and --password-file")
	}
	files, err := c.read()
	if err != nil {
		return topology.Backup{}, nil, err
	}
	t, problems := topology.Parse(files)
	if problems.Failed() {
		return topology.Backup{}, nil, problems
	}
	spec, ok := t.Backups[args[0]]
	if !ok {
		return topology.Backup{}, nil, fmt.Errorf("no backup %q in %s", args[0], c.names(files))
	}
	return spec, args[1:], nil
}

// quietLog is the log of a command that works on a repository by itself: it says what someone must look at.
func (c *cli) quietLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (c *cli) backupNowCommand() *cobra.Command {
	var r repositoryFlags
	command := &cobra.Command{
		Use:   "now NAME | now --repository REPOSITORY --password-file FILE PATH...",
		Short: "Take a snapshot now",
		Long: `Now has the running Mainstay take a snapshot for a backup of the topology and forget what its retention
lets go. With --repository it needs no Mainstay: it takes a snapshot of the paths itself, and makes the
repository, and the password file with a random password, if there is none.

The exit code is 3, as restic's, if the snapshot is partial: something could not be read whole.`,
		Example: `  mainstay backup now orders
  mainstay backup now --repository /mnt/backup --password-file backup.key /var/lib/shop
  mainstay backup now --repository s3://backups/shop --password-file backup.key /var/lib/shop`,
		Args: takes(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			snapshot, err := c.takeBackup(ctx, r, args)
			if err != nil {
				return err
			}
			if c.json() {
				err = c.printJSON(snapshot)
			} else {
				c.printSnapshot(snapshot)
			}
			if err == nil && snapshot.Partial {
				return &failure{ExitPartial, nil}
			}
			return err
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	r.register(command)
	return command
}

func (c *cli) takeBackup(ctx context.Context, r repositoryFlags, args []string) (*backup.Snapshot, error) {
	direct, err := r.given()
	if err != nil {
		return nil, err
	}
	if direct {
		spec, err := r.spec(args)
		if err != nil {
			return nil, err
		}
		return backup.Take(ctx, c.quietLog(), spec)
	}
	if len(args) > 1 {
		return nil, fail(ExitUsage, "one backup at a time; paths need --repository and --password-file")
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return client.Backup(ctx, args[0])
}

func (c *cli) printSnapshot(s *backup.Snapshot) {
	took := time.Duration(s.TookSeconds * float64(time.Second)).Round(time.Millisecond)
	fmt.Fprintf(c.Out, "snapshot %s: %s, %s, %s stored anew, in %s\n",
		shortID(s.ID), count(int(s.Files), "file"), size(s.Bytes), size(s.AddedBytes), took)
	for _, why := range s.Unreadable {
		fmt.Fprintf(c.Err, "not in the snapshot: %s\n", why)
	}
}

func (c *cli) backupListCommand() *cobra.Command {
	var r repositoryFlags
	command := &cobra.Command{
		Use:   "list NAME | list --repository REPOSITORY --password-file FILE",
		Short: "List the snapshots in a repository, oldest first",
		Long:  "List reads the repository itself; it needs no running Mainstay. Snapshots that are damaged are told on stderr, and the exit code is 1 then.",
		Example: `  mainstay backup list orders
  mainstay backup list orders -o json | jq -r '.[-1].id'
  mainstay backup list --repository /mnt/backup --password-file backup.key`,
		Args: takes(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			spec, rest, err := c.backupSpec(r, args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return fail(ExitUsage, "%s: --repository says already which", rest[0])
			}
			snapshots, err := backup.List(ctx, c.quietLog(), spec)
			if err != nil {
				return err
			}
			if c.json() {
				err = c.printJSON(append([]backup.Snapshot{}, snapshots...))
			} else {
				c.printSnapshots(snapshots)
			}
			if err == nil && slices.ContainsFunc(snapshots, func(s backup.Snapshot) bool { return s.Damaged != "" }) {
				return &failure{ExitFailed, nil}
			}
			return err
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	r.register(command)
	return command
}

func (c *cli) printSnapshots(snapshots []backup.Snapshot) {
	if len(snapshots) == 0 {
		fmt.Fprintln(c.Out, "No snapshots yet.")
		return
	}
	t := newTable("SNAPSHOT", "TIME", "AGE", "FILES", "SIZE", "HOST", "PATHS")
	for _, s := range snapshots {
		id := shortID(s.ID)
		if s.Damaged != "" {
			fmt.Fprintln(c.Err, s.Damaged)
			continue
		}
		t.row(id+partialMark(&s), s.Time.Local().Format(time.DateTime), age(s.Time), strconv.FormatUint(s.Files, 10), size(s.Bytes), s.Hostname, strings.Join(s.Paths, " "))
	}
	t.print(c.Out)
}

func (c *cli) backupRestoreCommand() *cobra.Command {
	var r repositoryFlags
	request := backup.RestoreRequest{Snapshot: "latest"}
	command := &cobra.Command{
		Use:   "restore NAME [SNAPSHOT] | restore --repository REPOSITORY --password-file FILE [SNAPSHOT]",
		Short: "Bring a snapshot's files back",
		Long: `Restore brings files back where they came from, or under --target. They are first restored beside their place,
verified and then renamed into it, so that what is there is either untouched or whole. What is there
already is replaced only with --force, and then kept under a name that ends in .pre-restore-TIME.
SNAPSHOT is an id, the beginning of one, or latest. It needs no running Mainstay; stop the service
whose data it is first.`,
		Example: `  mainstay backup restore orders --target /tmp/orders
  mainstay stop orders && mainstay backup restore orders --force && mainstay start orders
  mainstay backup restore orders 4f2c9a1b --include /var/lib/shop/orders.ndjson --target /tmp/one`,
		Args: takes(0, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted()
			defer stop()
			spec, rest, err := c.backupSpec(r, args)
			if err != nil {
				return err
			}
			switch len(rest) {
			case 0:
			case 1:
				request.Snapshot = rest[0]
			default:
				return fail(ExitUsage, "%s: one snapshot at a time", rest[1])
			}
			if request.Target != "" {
				if request.Target, err = filepath.Abs(request.Target); err != nil {
					return err
				}
			}
			restored, err := backup.Restore(ctx, c.quietLog(), spec, request)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(restored)
			}
			printRestored(c.Out, restored)
			return nil
		},
	}
	command.Flags().StringVar(&request.Target, "target", "", "`DIR` to restore into (default: where the files came from)")
	command.Flags().StringArrayVar(&request.Include, "include", nil, "restore only this `PATH` of the snapshot; may be repeated")
	command.Flags().BoolVar(&request.Force, "force", false, "replace what is there; it is kept beside")
	command.MarkFlagDirname("target")
	c.takesFiles(command)
	c.givesOutput(command)
	r.register(command)
	return command
}

func printRestored(w io.Writer, r *backup.Restored) {
	fmt.Fprintf(w, "restored %s, %s, from snapshot %s\n", count(int(r.Files), "file"), size(r.Bytes), shortID(r.Snapshot))
	for _, path := range r.Paths {
		fmt.Fprintf(w, "  in place  %s\n", path)
	}
	for _, path := range r.Kept {
		fmt.Fprintf(w, "  kept      %s\n", path)
	}
}

// shortID shows as much of a snapshot's id as people need.
func shortID(id string) string { return id[:min(8, len(id))] }
