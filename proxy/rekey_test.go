package proxy

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"mainstay/topology"
)

// TestKeyUpdates has a client of TLS that asks for new keys with every byte of its content (RFC 8446, section 4.6.3) and takes none of
// the answers: these must not pile up. One that takes them is served.
func TestKeyUpdates(t *testing.T) {
	const updates = 150_000
	r := newLimitedRig(t, topology.ClientLimits{})
	r.secure(t)
	c := r.rekeyer()
	c.write(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 2*updates))
	sent := 0
	for ; sent < updates && c.err == nil; sent++ {
		c.write("x")
		c.update()
	}
	t.Logf("%d key updates: %v", sent, c.err)
	if c.err == nil {
		t.Errorf("%d key updates were answered, and nobody took the answers", sent)
	}
	c = r.rekeyer()
	c.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
	for range 10 { // crypto/tls takes no more in a row
		c.update()
		c.write("x")
	}
	c.flush()
	res, err := http.ReadResponse(bufio.NewReader(c.tls), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.Contains(string(b), strings.Repeat("x", 10)) || err != nil {
		t.Errorf("%s %d bytes, %v", res.Status, len(b), err)
	}
}

// A rekeyer is a client of TLS 1.3 that writes its records itself, because crypto/tls asks for no new keys.
type rekeyer struct {
	conn    net.Conn
	tls     *tls.Conn // reads
	secret  []byte
	aead    cipher.AEAD
	iv      []byte
	count   uint64
	pending []byte
	err     error
}

func (r *rig) rekeyer() *rekeyer {
	// Small segments and a small buffer make the kernel keep little for this connection.
	small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		})
	}}
	conn, err := small.Dial("tcp", r.listener("https").Address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	var keys bytes.Buffer
	c := &rekeyer{conn: conn, tls: tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, KeyLogWriter: &keys, MinVersion: tls.VersionTLS13,
	})}
	if err := c.tls.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	if suite := c.tls.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		// Without instructions for AES crypto/tls chooses another, whose records this client cannot write.
		if os.Getenv("CI") == "true" {
			r.t.Fatalf("the server has chosen %s", tls.CipherSuiteName(suite))
		}
		r.t.Skipf("the server has chosen %s", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			c.secret, _ = hex.DecodeString(f[2])
		}
	}
	c.rekey()
	return c
}

// expand is HKDF-Expand-Label without a context (RFC 8446, section 7.1).
func (c *rekeyer) expand(label string, size int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	b, err := hkdf.Expand(sha256.New, c.secret, string(info), size)
	if err != nil {
		panic(err)
	}
	return b
}

func (c *rekeyer) rekey() {
	block, err := aes.NewCipher(c.expand("key", 16))
	if err != nil {
		panic(err)
	}
	if c.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	c.iv, c.count = c.expand("iv", 12), 0
}

// record writes one of the type (RFC 8446, section 5.2).
func (c *rekeyer) record(content string, kind byte) {
	const application = 23
	plain := append([]byte(content), kind)
	header := []byte{application, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(plain)+c.aead.Overhead()))
	nonce := bytes.Clone(c.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^c.count)
	c.count++
	c.pending = c.aead.Seal(append(c.pending, header...), nonce, plain, header)
	if len(c.pending) > 16<<10 {
		c.flush()
	}
}

func (c *rekeyer) flush() {
	if c.err == nil {
		_ = c.conn.SetWriteDeadline(time.Now().Add(2 * time.Second)) // nobody reads what is written for so long: that is a bound, too
		_, c.err = c.conn.Write(c.pending)
	}
	c.pending = c.pending[:0]
}

func (c *rekeyer) write(content string) { c.record(content, 23) }

// update asks for new keys, and takes its own.
func (c *rekeyer) update() {
	c.record("\x18\x00\x00\x01\x01", 22)
	c.secret = c.expand("traffic upd", 32)
	c.rekey()
}
