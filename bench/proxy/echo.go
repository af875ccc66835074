//go:build linux

package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
)

// runEcho is a process that answers each WebSocket message with the same message.
func runEcho(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			defer conn.Close()
			echo(conn) // how it ends tells the client, which counts
		}()
	}
}

func echo(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 64<<10)
	request, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	key := request.Header.Get("Sec-WebSocket-Key")
	if key == "" {
		_, err := io.WriteString(conn, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return err
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(key) + "\r\n\r\n"
	if _, err := io.WriteString(conn, answer); err != nil {
		return err
	}
	payload := make([]byte, 64<<10)
	for {
		p, err := readMasked(in, payload)
		if err != nil {
			return err
		}
		if _, err := conn.Write(plainFrame(p)); err != nil {
			return err
		}
	}
}

// acceptKey returns what Sec-WebSocket-Accept must say (RFC 6455 section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// plainFrame returns a binary message of at most 64 KiB as a server sends it (RFC 6455 section 5.2).
func plainFrame(payload []byte) []byte {
	frame := []byte{0x82}
	if len(payload) < 126 {
		frame = append(frame, byte(len(payload)))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(len(payload)))
	}
	return append(frame, payload...)
}

// maskedFrame returns a binary message as a client sends it.
func maskedFrame(payload []byte) []byte {
	frame := plainFrame(payload)
	start := len(frame) - len(payload)
	frame[1] |= 0x80
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	masked := append(frame[:start:start], mask[:]...)
	for i, b := range payload {
		masked = append(masked, b^mask[i%4])
	}
	return masked
}

// readMasked reads a client's message into buffer.
func readMasked(in io.Reader, buffer []byte) ([]byte, error) {
	var start [8]byte
	if _, err := io.ReadFull(in, start[:2]); err != nil {
		return nil, err
	}
	if start[0] != 0x82 || start[1]&0x80 == 0 {
		return nil, fmt.Errorf("a frame that begins with %x", start[:2])
	}
	size := int(start[1] & 0x7f)
	if size == 126 {
		if _, err := io.ReadFull(in, start[2:4]); err != nil {
			return nil, err
		}
		size = int(binary.BigEndian.Uint16(start[2:4]))
	}
	if size > len(buffer) {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	var mask [4]byte
	if _, err := io.ReadFull(in, mask[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(in, buffer[:size]); err != nil {
		return nil, err
	}
	for i := range size {
		buffer[i] ^= mask[i%4]
	}
	return buffer[:size], nil
}
