//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// A head is what the generator must know of a response's header.
type head struct {
	size   int // with the empty line; 0 if it has not come whole
	status int
	length int // Content-Length, which every response in these measurements has
	close  bool
}

// parseHead reads the header that p begins with. What is not HTTP/1.1 with a Content-Length is an error.
func parseHead(p []byte) (head, error) {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return head{}, nil
	}
	if len(p) < 13 || !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) {
		return head{}, fmt.Errorf("not a response: %.40q", p)
	}
	h := head{size: end + 4, length: -1}
	status, err := strconv.Atoi(string(p[9:12]))
	if err != nil {
		return head{}, fmt.Errorf("not a status: %.40q", p)
	}
	h.status = status
	lines := p[:end+2]
	for {
		at := bytes.IndexByte(lines, '\n')
		if at < 0 || at+1 >= len(lines) {
			break
		}
		lines = lines[at+1:]
		switch lines[0] | 0x20 {
		case 'c':
			if value, ok := field(lines, "content-length:"); ok {
				if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 {
					return head{}, fmt.Errorf("not a length: %.40q", lines)
				}
			} else if value, ok := field(lines, "connection:"); ok {
				h.close = bytes.EqualFold(value, []byte("close"))
			}
		}
	}
	if h.length < 0 && h.status/100 == 2 {
		return head{}, fmt.Errorf("no Content-Length: %.300q", p)
	}
	return h, nil
}

// field returns the value of the line that p begins with if it has this name, which is in lower case and ends in a colon.
func field(p []byte, name string) ([]byte, bool) {
	if len(p) < len(name) || !bytes.EqualFold(p[:len(name)], []byte(name)) {
		return nil, false
	}
	value, _, _ := bytes.Cut(p[len(name):], []byte("\r"))
	return bytes.TrimSpace(value), true
}
