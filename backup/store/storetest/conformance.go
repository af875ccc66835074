package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/backup/store"
)

// Run checks that s, which is empty, keeps the promises of [store.Store].
func Run(t *testing.T, s store.Store) {
	ctx := t.Context()
	put := func(t *testing.T, name string, data []byte) {
		t.Helper()
		if err := s.Put(ctx, name, data, sha256.Sum256(data)); err != nil {
			t.Fatal(err)
		}
	}
	names := func(t *testing.T, dir string) []string {
		t.Helper()
		var names []string
		for o, err := range s.List(ctx, dir) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprintf("%s %d", o.Name, o.Size))
		}
		slices.Sort(names)
		return names
	}

	t.Run("what is not there", func(t *testing.T) {
		if _, err := s.Get(ctx, "data/none", 0, 1); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
		if _, err := s.Stat(ctx, "data/none"); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
		if err := s.Delete(ctx, "data/none"); err != nil {
			t.Errorf("delete: %v", err)
		}
		if got := names(t, "data"); len(got) > 0 {
			t.Errorf("list: %q", got)
		}
	})
	t.Run("ranges", func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789"), 100_000)
		put(t, "range/object", data)
		for _, r := range [][2]int64{{0, 1_000_000}, {0, 1}, {5, 10}, {999_999, 1}, {0, 0}, {1_000_000, 0}} {
			got, err := s.Get(ctx, "range/object", r[0], r[1])
			if err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
				t.Errorf("get %d: %d bytes, %v", r, len(got), err)
			}
		}
		for _, r := range [][2]int64{{0, 1_000_001}, {999_999, 2}, {1_000_000, 1}, {2_000_000, 5}, {1_000_001, 0}, {-1, 1}, {0, -1}, {1 << 62, 1 << 62}} {
			if got, err := s.Get(ctx, "range/object", r[0], r[1]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("get %d: %d bytes, %v", r, len(got), err)
			}
		}
		if size, err := s.Stat(ctx, "range/object"); err != nil || size != 1_000_000 {
			t.Errorf("stat: %d, %v", size, err)
		}
	})
	t.Run("never replaced", func(t *testing.T) {
		put(t, "once/object", []byte("first"))
		second := []byte("second")
		if err := s.Put(ctx, "once/object", second, sha256.Sum256(second)); !errors.Is(err, store.ErrExist) {
			t.Errorf("second put: %v", err)
		}
		if got, err := s.Get(ctx, "once/object", 0, 5); err != nil || string(got) != "first" {
			t.Errorf("get: %q, %v", got, err)
		}
		if err := s.Delete(ctx, "once/object"); err != nil {
			t.Fatal(err)
		}
		put(t, "once/object", second)
	})
	t.Run("one of many wins", func(t *testing.T) {
		var won sync.Map
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				data := fmt.Append(nil, "writer ", i)
				err := s.Put(ctx, "race/object", data, sha256.Sum256(data))
				if err == nil {
					won.Store(string(data), true)
				} else if !errors.Is(err, store.ErrExist) {
					t.Errorf("put: %v", err)
				}
			})
		}
		group.Wait()
		var winners []string
		won.Range(func(k, _ any) bool { winners = append(winners, k.(string)); return true })
		got, err := s.Get(ctx, "race/object", 0, 8)
		if err != nil || len(winners) != 1 || winners[0] != string(got) {
			t.Errorf("winners %q, stored %q, %v", winners, got, err)
		}
	})
	t.Run("listing", func(t *testing.T) {
		for _, name := range []string{"list/a", "list/b/c", "list/b/d", "list2/e"} {
			put(t, name, []byte(name))
		}
		put(t, "list/empty", nil)
		want := []string{"list/a 6", "list/b/c 8", "list/b/d 8", "list/empty 0"}
		if diff := cmp.Diff(want, names(t, "list")); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want[1:3], names(t, "list/b")); diff != "" {
			t.Errorf("list/b (-want +got):\n%s", diff)
		}
		for range s.List(ctx, "list") { // may be left early
			break
		}
		for o := range s.List(ctx, "list") { // and changed meanwhile
			if err := s.Delete(ctx, o.Name); err != nil {
				t.Error(err)
			}
		}
		if got := names(t, "list"); len(got) > 0 {
			t.Errorf("left after deleting: %q", got)
		}
	})
	t.Run("names", func(t *testing.T) {
		for _, name := range []string{"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "."} {
			if err := s.Put(ctx, name, nil, sha256.Sum256(nil)); err == nil || errors.Is(err, store.ErrExist) {
				t.Errorf("put %q: %v", name, err)
			}
			if _, err := s.Get(ctx, name, 0, 1); err == nil || errors.Is(err, store.ErrNotExist) {
				t.Errorf("get %q: %v", name, err)
			}
			if err := s.Delete(ctx, name); err == nil {
				t.Errorf("delete %q succeeded", name)
			}
		}
	})
	t.Run("done context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Put(ctx, "late/object", nil, sha256.Sum256(nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("put: %v", err)
		}
		if _, err := s.Get(ctx, "range/object", 0, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("get: %v", err)
		}
		for _, err := range s.List(ctx, "range") {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("list: %v", err)
			}
		}
	})
}
