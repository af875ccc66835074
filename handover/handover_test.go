package handover

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = Open(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

func TestMessages(t *testing.T) {
	a, b := pair(t)
	large := bytes.Repeat([]byte("large"), 1<<20)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	io.WriteString(file, "content")
	sent := make(chan error, 1)
	go func() {
		many := make([]int, MaxFiles)
		for i := range many {
			many[i] = int(file.Fd())
		}
		sent <- errors.Join(
			Send(a, 1, nil), Send(a, 2, []byte("two"), int(file.Fd())), Send(a, 3, large, many...), Send(a, 4, []byte("last")), a.Close())
	}()
	want := []struct {
		kind  byte
		body  []byte
		files int
	}{{1, nil, 0}, {2, []byte("two"), 1}, {3, large, MaxFiles}, {4, []byte("last"), 0}}
	for _, w := range want {
		m, err := Receive(b)
		if err != nil || m.Kind != w.kind || !bytes.Equal(m.Body, w.body) || len(m.Files) != w.files {
			t.Fatalf("received kind %d, %d bytes, %d files, %v; want %d, %d, %d", m.Kind, len(m.Body), len(m.Files), err, w.kind, len(w.body), w.files)
		}
		for _, f := range m.Files {
			content := make([]byte, 7)
			if _, err := f.ReadAt(content, 0); err != nil || string(content) != "content" {
				t.Errorf("the file that came holds %q, %v", content, err)
			}
		}
		m.Close()
	}
	if _, err := Receive(b); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestBrokenMessage(t *testing.T) {
	a, b := pair(t)
	a.Write([]byte{1, 0, 0, 0, 0, 9, 'h', 'a', 'l', 'f'})
	a.Close()
	if _, err := Receive(b); err != io.ErrUnexpectedEOF {
		t.Errorf("half a message: %v", err)
	}
	a, b = pair(t)
	a.Write([]byte{1, 1, 0, 0, 0, 1, 'x'})
	if m, err := Receive(b); err == nil || m.Files != nil {
		t.Errorf("a message that lacks its file: %v, %v", m, err)
	}
	if err := Send(a, 1, nil, make([]int, MaxFiles+1)...); err == nil {
		t.Error("too many files were sent")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("/dev/null was taken for a socket")
	}
}
