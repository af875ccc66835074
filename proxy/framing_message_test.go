package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// errMore says that what came is the beginning of a message.
var errMore = errors.New("more is needed")

// readMessage reads a request or a response strictly: whatever is not framed in exactly one way is an error. The method
// is that of the request which is responded to, and empty for a request. It returns what the message takes of p; ended says
// that nothing follows p.
func readMessage(p []byte, method string, ended bool) (m message, n int, err error) {
	head, rest, ok := bytes.Cut(p, []byte("\r\n\r\n"))
	if !ok {
		return m, 0, errMore
	}
	lines := strings.Split(string(head), "\r\n")
	for _, line := range lines {
		if i := strings.IndexAny(line, "\r\n\x00"); i >= 0 {
			return m, 0, fmt.Errorf("the head has %q in %q", line[i], line)
		}
	}
	m.line = lines[0]
	status := 0
	if method != "" {
		version, after, _ := strings.Cut(m.line, " ")
		code, _, _ := strings.Cut(after, " ")
		if status, err = strconv.Atoi(code); err != nil || len(code) != 3 || version != "HTTP/1.1" && version != "HTTP/1.0" {
			return m, 0, fmt.Errorf("%q is no status line", m.line)
		}
		m.line = code
	}
	if m.fields, err = readFields(lines[1:]); err != nil {
		return m, 0, err
	}
	n = len(p) - len(rest)
	lengths, codings := valuesOf(m.fields, "content-length"), valuesOf(m.fields, "transfer-encoding")
	bodiless := method == "HEAD" || status >= 100 && status < 200 || status == 204 || status == 304
	switch {
	case len(lengths) > 1 || len(codings) > 1 || len(lengths) > 0 && len(codings) > 0:
		return m, 0, fmt.Errorf("%s is framed in more than one way", m)
	case status == 204 && len(lengths)+len(codings) > 0:
		return m, 0, fmt.Errorf("%s has a framing field", m)
	case status == 101: // what follows is no HTTP
		m.content = string(rest)
		if !ended {
			return m, 0, errMore
		}
		return m, len(p), nil
	case bodiless:
		return m, n, nil
	case len(codings) == 1:
		if codings[0] != "chunked" {
			return m, 0, fmt.Errorf("%s is coded", m)
		}
		used, err := m.readChunks(rest)
		return m, n + used, err
	case len(lengths) == 1:
		length, err := strconv.Atoi(lengths[0])
		if err != nil || strconv.Itoa(length) != lengths[0] {
			return m, 0, fmt.Errorf("%q is no length", lengths[0])
		}
		m.content = string(rest[:min(length, len(rest))])
		if len(rest) < length {
			return m, 0, errMore
		}
		return m, n + length, nil
	case method == "":
		return m, n, nil
	}
	m.content = string(rest)
	if !ended {
		return m, 0, errMore
	}
	return m, len(p), nil
}

func readFields(lines []string) (fields []string, err error) {
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%q is no field", line)
		}
		fields = append(fields, strings.ToLower(name)+": "+strings.Trim(value, " \t"))
	}
	sortFields(fields)
	return fields, nil
}

// readChunks reads chunked content and returns what it takes of p.
func (m *message) readChunks(p []byte) (n int, err error) {
	for {
		line, rest, ok := bytes.Cut(p[n:], []byte("\r\n"))
		if !ok {
			return 0, errMore
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return 0, fmt.Errorf("%q is no chunk size", line)
		}
		n = len(p) - len(rest)
		if size == 0 {
			break
		}
		m.content += string(rest[:min(int(size), len(rest))])
		if len(rest) < int(size)+2 {
			return 0, errMore
		}
		if string(rest[size:size+2]) != "\r\n" {
			return 0, fmt.Errorf("a chunk ends in %q", rest[size:size+2])
		}
		n += int(size) + 2
	}
	if bytes.HasPrefix(p[n:], []byte("\r\n")) {
		return n + 2, nil
	}
	section, rest, ok := bytes.Cut(p[n:], []byte("\r\n\r\n"))
	if !ok {
		return 0, errMore
	}
	m.trailers, err = readFields(strings.Split(string(section), "\r\n"))
	return len(p) - len(rest), err
}

// sortFields sorts by name; lines of one name stay in order.
func sortFields(fields []string) {
	slices.SortStableFunc(fields, func(a, b string) int {
		x, _, _ := strings.Cut(a, ":")
		y, _, _ := strings.Cut(b, ":")
		return strings.Compare(x, y)
	})
}

func valuesOf(fields []string, name string) (values []string) {
	for _, f := range fields {
		if v, ok := strings.CutPrefix(f, name+": "); ok {
			values = append(values, v)
		}
	}
	return values
}

// plain returns the message without the fields that the proxy adds, where they are exactly as they must be; the instance's address
// is INSTANCE. That a request without content says so makes no difference.
func (m message) plain(port, instance string) message {
	version := strings.TrimPrefix(m.line[strings.LastIndexByte(m.line, ' ')+1:], "HTTP/")
	host := ""
	if hosts := valuesOf(m.fields, "host"); len(hosts) == 1 {
		host = hosts[0]
	}
	forwarded := "for=127.0.0.1;proto=http"
	if host != "" && host != instance {
		forwarded += `;host="` + host + `"`
	}
	added := map[string]bool{
		"x-forwarded-for: 127.0.0.1": true, "x-real-ip: 127.0.0.1": true, "x-forwarded-proto: http": true,
		"x-forwarded-host: " + host: true, "x-forwarded-port: " + port: true, "forwarded: " + forwarded: true,
	}
	request := strings.Contains(m.line, " ")
	m.fields = slices.DeleteFunc(slices.Clone(m.fields), func(f string) bool {
		name, value, _ := strings.Cut(f, ": ")
		switch name {
		case "x-request-id":
			return len(value) == 26 && isRequestID(value)
		case "via":
			via, by, _ := strings.Cut(value, " ")
			return (via == "1.1" || via == "1.0" || via == version) && strings.HasPrefix(by, "mainstay-")
		case "content-length":
			return request && value == "0" || m.line == "304" // which net/http leaves out
		case "date":
			return strings.HasSuffix(value, " GMT")
		}
		return added[f]
	})
	for i, f := range m.fields {
		if f == "host: "+instance {
			m.fields[i] = "host: INSTANCE"
		}
		if own := strings.LastIndex(f, "mainstay-"); own >= 0 && strings.HasPrefix(f, "via: ") {
			m.fields[i] = f[:own] + "mainstay"
		}
	}
	return m
}
