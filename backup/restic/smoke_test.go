package restic

import (
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"fmt"
	"time"

	"mainstay/backup/store"
)

func TestSmoke(t *testing.T) {
	dir := os.Getenv("SMOKE")
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx := t.Context()
	s, err := store.Open(ctx, log, "file:///tmp/bk/m")
	if err != nil { t.Fatal(err) }
	r, err := Open(ctx, log, s, "x")
	if err != nil {
		r, err = Create(ctx, log, s, "x")
	}
	if err != nil { t.Fatal(err) }
	st := time.Now()
	sn, err := r.Backup(ctx, BackupRequest{Paths: []string{dir}, Program: "mainstay"})
	fmt.Println(time.Since(st), err)
	if err != nil { t.Fatal(err) }
	fmt.Printf("%v %+v %v\n", sn.ID, *sn.Summary, sn.Unreadable)
	_ = exec.Command
}
