package topology

import (
	"fmt"
	"math"
	"net/netip"
	"net/textproto"
	"net/url"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/adhocore/gronx"
	"golang.org/x/sys/unix"
)

// Here are the kinds of scalars: what they are called, how they are read and how an editor checks them.

func faultf(format string, args ...any) error { return fault{message: fmt.Sprintf(format, args...)} }

func (t *typ) plural() string {
	words := strings.TrimPrefix(strings.TrimPrefix(t.name, "a "), "an ")
	first, rest, more := strings.Cut(words, " ")
	if more {
		return first + "s " + rest
	}
	return first + "s"
}

func listedAsWritten(words []string) string { return strings.Join(words, ", ") }

func parseEnum(text string, values []string) (any, error) {
	if slices.Contains(values, text) {
		return text, nil
	}
	return nil, fault{fmt.Sprintf("unknown value %q; one of %s", text, listedAsWritten(values)), nearest(text, values)}
}

// text is a string that is not empty and has no control characters.
var text = &typ{name: "a string", parse: parseText, schema: map[string]any{"type": "string"}}

func parseText(s scalar) (any, error) {
	t := s.String()
	if t == "" {
		return nil, faultf("is empty")
	}
	if i := strings.IndexFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return nil, faultf("has the control character %q in it", t[i])
	}
	return t, nil
}

// argument is any scalar as it is written, for what is handed on: arguments, the environment. It is a Text.
var argument = &typ{
	name: "a string", yaml: "any", schema: map[string]any{"type": []string{"string", "number", "boolean"}},
	parse: func(s scalar) (any, error) {
		if strings.ContainsRune(s.String(), 0) {
			return nil, faultf("has a NUL byte in it")
		}
		if err := checkPlaceholders(s); err != nil {
			return nil, err
		}
		return s.Text(), nil
	},
}

// placeholders are what each instance has its own value for.
var placeholders = []string{"address", "host", "port", "replica", "service"}

var placeholderForm = regexp.MustCompile(`\{([a-z_]+)\}`)

// checkPlaceholders finds those that are misspelled. Other braces are none of Mainstay's business.
func checkPlaceholders(s scalar) error {
	for _, seg := range s.segments {
		if seg.inserted {
			continue
		}
		for _, m := range placeholderForm.FindAllStringSubmatch(seg.text, -1) {
			if slices.Contains(placeholders, m[1]) {
				continue
			}
			// One slip in a short word is another word already: {cost} is not {host}.
			if near := nearest(m[1], placeholders); near != "" && (len(near) > 4 || distance(m[1], near) == 1) {
				return fault{fmt.Sprintf("unknown placeholder {%s}", m[1]), "{" + near + "}"}
			}
		}
	}
	return nil
}

// integer is a whole number from lowest to highest.
func integer(lowest, highest int64) *typ {
	schema := map[string]any{"type": "integer", "minimum": lowest}
	if highest < math.MaxInt32 {
		schema["maximum"] = highest
	}
	return &typ{name: "a whole number", yaml: "!!int", schema: schema, parse: func(s scalar) (any, error) {
		n, err := parseInteger(s.String())
		if err != nil {
			return nil, err
		}
		if n < lowest || n > highest {
			return nil, faultf("%d is not from %d to %d", n, lowest, highest)
		}
		return int(n), nil
	}}
}

var integerForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func parseInteger(text string) (int64, error) {
	if !integerForm.MatchString(text) {
		return 0, faultf("%q is not a whole number", text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, faultf("%s is out of range", text)
	}
	return n, nil
}

var number = &typ{
	name: "a number", yaml: "!!float", schema: map[string]any{"type": "number"},
	parse: func(s scalar) (any, error) {
		f, err := strconv.ParseFloat(s.String(), 64)
		if err != nil {
			return nil, faultf("%q is not a number", s)
		}
		return f, nil
	},
}

var boolean = &typ{
	name: "true or false", yaml: "!!bool", schema: map[string]any{"type": "boolean"},
	parse: func(s scalar) (any, error) {
		switch s.String() {
		case "true", "True", "TRUE":
			return true, nil
		case "false", "False", "FALSE":
			return false, nil
		}
		return nil, faultf("%q is neither true nor false", s)
	},
}

// duration is a time.Duration of at least lowest.
func duration(lowest time.Duration) *typ {
	return &typ{
		name:   "a duration",
		yaml:   "any",
		schema: map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d))+$|\$\{`},
		parse: func(s scalar) (any, error) {
			d, err := parseDuration(s.String())
			if err != nil {
				return nil, err
			}
			if d < lowest {
				return nil, faultf("%s is too short; at least %s", s, shortDuration(lowest))
			}
			return d, nil
		},
	}
}

var (
	bareNumber  = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	wholeDays   = regexp.MustCompile(`^([0-9]{1,5})d`)
	sizeForm    = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]+)$`)
	percentForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?%$`)
)

func parseDuration(text string) (time.Duration, error) {
	if bareNumber.MatchString(text) {
		return 0, fault{fmt.Sprintf("%s has no unit", text), text + "s"}
	}
	rest, days := text, 0
	if m := wholeDays.FindStringSubmatch(text); m != nil {
		days, _ = strconv.Atoi(m[1])
		rest = text[len(m[0]):]
	}
	var d time.Duration
	if rest != "" || days == 0 && !wholeDays.MatchString(text) {
		var err error
		if d, err = time.ParseDuration(rest); err != nil || d < 0 || rest[0] == '+' {
			return 0, faultf("%q is not a duration like 500ms, 1m30s or 30d", text)
		}
	}
	return time.Duration(days)*24*time.Hour + d, nil
}

// shortDuration prints d without the zero units that Duration.String appends: 1m, not 1m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size is a number of bytes.
var size = &typ{
	name: "a size", yaml: "any",
	schema: map[string]any{"type": "string", "pattern": `^[0-9]+ ?(B|[kKMGT]B|[KMGT]iB)$|\$\{`},
	parse:  func(s scalar) (any, error) { return parseSize(s.String()) },
}

var sizeUnits = map[string]int64{
	"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

func parseSize(text string) (any, error) {
	if bareNumber.MatchString(text) {
		return nil, fault{fmt.Sprintf("%s has no unit", text), text + "MiB"}
	}
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		return nil, faultf("%q is not a size like 64MiB", text)
	}
	unit, known := sizeUnits[m[2]]
	if !known {
		f := fault{message: fmt.Sprintf("%q is not a size like 64MiB: the units are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB", text)}
		if i := strings.Index("kmgt", strings.ToLower(m[2][:1])); i >= 0 {
			f.suggestion = m[1] + "KMGT"[i:i+1] + "iB"
		}
		return nil, f
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return nil, faultf("%s is out of range", text)
	}
	if n == 0 {
		return nil, faultf("%s is nothing; at least 1B", text)
	}
	return n * unit, nil
}

// shortSize prints n with the largest binary unit that divides it.
func shortSize(n int64) string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n != 0 && n%sizeUnits[unit] == 0 {
			return strconv.FormatInt(n/sizeUnits[unit], 10) + unit
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

var percentage = &typ{
	name: "a percentage", schema: map[string]any{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$|\$\{`},
	parse: func(s scalar) (any, error) {
		if !percentForm.MatchString(s.String()) {
			return nil, faultf("%q is not a percentage like 5%%", s)
		}
		return strconv.ParseFloat(strings.TrimSuffix(s.String(), "%"), 64)
	},
}

// file is a path, made absolute.
var file = &typ{
	name: "a path", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		if _, err := parseText(s); err != nil {
			return nil, err
		}
		return absolute(s.String(), s.directory), nil
	},
}

// address is host:port; anyHost says that the host may be empty, for every interface.
func address(anyHost bool) *typ {
	return &typ{
		name: "an address", yaml: "any", schema: map[string]any{"type": "string", "pattern": `:[0-9]+$|\$\{`},
		parse: func(s scalar) (any, error) { return parseAddress(s.String(), anyHost) },
	}
}

var hostLabels = regexp.MustCompile(`^([A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.?$`)

func parseAddress(text string, anyHost bool) (any, error) {
	if integerForm.MatchString(text) {
		return nil, fault{fmt.Sprintf("%q is not an address: it needs a host", text), "127.0.0.1:" + text}
	}
	host, port, err := splitAddress(text)
	if err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || !integerForm.MatchString(port) {
		return nil, faultf("%q is not an address: the port is a number from 1 to 65535", text)
	}
	switch {
	case host == "" && anyHost:
	case host == "":
		return nil, fault{fmt.Sprintf("%q is not an address: it needs a host", text), "127.0.0.1" + text}
	case !isHost(host):
		return nil, faultf("%q is not an address: %q is neither a name nor an IP address", text, host)
	}
	return text, nil
}

func splitAddress(text string) (host, port string, err error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", "", faultf("%q is not an address like 127.0.0.1:8080: it needs a port", text)
	}
	host, port = text[:i], text[i+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(inner, ":") {
			return "", "", faultf("%q is not an address like [::1]:8080", text)
		}
		return inner, port, nil
	}
	if strings.Contains(host, ":") {
		return "", "", fault{fmt.Sprintf("%q is not an address: an IPv6 address stands in brackets", text), "[" + host + "]:" + port}
	}
	return host, port, nil
}

func isHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Is4() || ip.Is6()
	}
	return len(host) <= 253 && hostLabels.MatchString(host) && !dottedNumbers.MatchString(host)
}

// dottedNumbers finds what was meant to be an IPv4 address.
var dottedNumbers = regexp.MustCompile(`^[0-9.]+$`)

// probeAddress is an address in which placeholders may stand for the instance's own.
func parseProbeAddress(s scalar) (any, error) {
	text := s.String()
	if err := checkPlaceholders(s); err != nil {
		return nil, err
	}
	filled := strings.NewReplacer("{address}", "127.0.0.1:1", "{host}", "127.0.0.1", "{port}", "1").Replace(text)
	if _, err := parseAddress(filled, false); err != nil {
		if filled == text {
			return nil, err
		}
		return nil, faultf("%q does not become an address like 127.0.0.1:8080", text)
	}
	return text, nil
}

var probeAddress = &typ{name: "an address", schema: map[string]any{"type": "string"}, parse: parseProbeAddress}

// tcpProbe is true, for the instance's own address, or an address.
var tcpProbe = &typ{
	name: "true or an address", yaml: "any", schema: map[string]any{"type": []string{"boolean", "string"}},
	parse: func(s scalar) (any, error) {
		switch s.String() {
		case "true", "True", "TRUE":
			return "{address}", nil
		case "false", "False", "FALSE":
			return nil, faultf("is true or an address; leave the probe out to have none")
		}
		return parseProbeAddress(s)
	},
}

// endpoint is where ZeroMQ peers connect to.
var endpoint = &typ{
	name: "an endpoint", schema: map[string]any{"type": "string", "pattern": `^tcp://.+:[0-9]+$|\$\{`},
	parse: func(s scalar) (any, error) {
		text := s.String()
		scheme, rest, ok := strings.Cut(text, "://")
		switch {
		case !ok:
			return nil, fault{fmt.Sprintf("%q is not an endpoint", text), "tcp://" + text}
		case scheme == "ipc" || scheme == "inproc" || scheme == "udp" || scheme == "ws":
			return nil, faultf("%s:// is not supported yet; tcp:// is", scheme)
		case scheme != "tcp":
			return nil, faultf("%q is not an endpoint like tcp://127.0.0.1:5556", text)
		}
		if port, every := strings.CutPrefix(rest, "*:"); every {
			rest = "0.0.0.0:" + port
		}
		if _, err := parseAddress(rest, false); err != nil {
			return nil, err
		}
		return text, nil
	},
}

// port is a Port.
var port = &typ{
	name: "auto, none or a number", yaml: "any",
	schema: map[string]any{"anyOf": []any{
		map[string]any{"enum": []string{"auto", "none"}},
		map[string]any{"type": "integer", "minimum": 1, "maximum": 65535},
	}},
	parse: func(s scalar) (any, error) {
		switch text := s.String(); text {
		case "auto":
			return PortAuto, nil
		case "none":
			return PortNone, nil
		default:
			n, err := parseInteger(text)
			if err != nil {
				return nil, fault{fmt.Sprintf("%q is neither auto, none nor a number", text), nearest(text, []string{"auto", "none"})}
			}
			if n < 1 || n > 65535 {
				return nil, faultf("%d is not from 1 to 65535", n)
			}
			return Port(n), nil
		}
	},
}

var signal = &typ{
	name: "a signal", schema: map[string]any{"type": "string", "pattern": `^SIG[A-Z0-9]+$|\$\{`},
	parse: func(s scalar) (any, error) {
		n := unix.SignalNum(s.String())
		if n == 0 {
			f := fault{message: fmt.Sprintf("%q is not a signal like SIGTERM", s)}
			if upper := "SIG" + strings.TrimPrefix(strings.ToUpper(s.String()), "SIG"); unix.SignalNum(upper) != 0 {
				f.suggestion = upper
			}
			return nil, f
		}
		if n == syscall.SIGSTOP || n == syscall.SIGCONT || n == syscall.SIGCHLD {
			return nil, faultf("%s does not end a process", s)
		}
		return n, nil
	},
}

// cron is the five fields of crontab(5).
var cron = &typ{
	name: "a cron expression", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		fields := strings.Fields(s.String())
		if len(fields) != 5 {
			return nil, faultf("%q is not a cron expression: it has %d fields, not five (minute hour day month weekday)", s, len(fields))
		}
		for _, f := range fields {
			if !cronField.MatchString(f) {
				return nil, faultf("%q is not a cron expression: %q is no field of one", s, f)
			}
		}
		expr := strings.Join(fields, " ")
		if !gronx.IsValid(expr) {
			return nil, faultf("%q is not a cron expression: a field is out of its range", s)
		}
		return expr, nil
	},
}

var cronField = regexp.MustCompile(`(?i)^(\*|[0-9a-z]+(-[0-9a-z]+)?)(/[0-9]+)?(,(\*|[0-9a-z]+(-[0-9a-z]+)?)(/[0-9]+)?)*$`)

// routeHost is the host of requests, in lower case.
var routeHost = &typ{
	name: "a host", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		host := strings.ToLower(strings.TrimSuffix(s.String(), "."))
		name := strings.TrimPrefix(host, "*.")
		switch {
		case host == "*":
			return nil, faultf(`"*" is not a host; leave host out to match every one`)
		case strings.Contains(host, "://") || strings.Contains(host, "/"):
			return nil, faultf("%q is not a host: it has no scheme and no path", s)
		case strings.Contains(name, "*"):
			return nil, faultf("%q is not a host: * stands for the first label only, as in *.example.com", s)
		}
		if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil && name == host {
			return ip.String(), nil
		}
		if i := strings.LastIndexByte(name, ':'); i >= 0 {
			return nil, fault{fmt.Sprintf("%q is not a host: it has no port", s), host[:strings.LastIndexByte(host, ':')]}
		}
		if !isHost(name) {
			return nil, faultf("%q is not a host; names outside of ASCII are written in punycode (xn--…)", s)
		}
		return host, nil
	},
}

// pathPrefix is the beginning of a request's path, without a slash at its end.
var pathPrefix = &typ{
	name: "a path prefix", schema: map[string]any{"type": "string", "pattern": `^/|\$\{`},
	parse: func(s scalar) (any, error) {
		text := s.String()
		if !strings.HasPrefix(text, "/") {
			return nil, fault{fmt.Sprintf("%q does not begin with a slash", text), "/" + text}
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`?#"<>\^{|}`+"`", r) }); i >= 0 {
			return nil, faultf("%q has a character in it that no path of a request has", text)
		}
		if _, err := url.PathUnescape(text); err != nil {
			return nil, faultf("%q has a %% in it that is not followed by two hex digits", text)
		}
		trimmed := strings.TrimSuffix(text, "/")
		if trimmed == "" {
			return "/", nil
		}
		for _, segment := range strings.Split(trimmed[1:], "/") {
			if segment == "" || segment == "." || segment == ".." {
				return nil, faultf("%q has the segment %q in it, which a request's path never has", text, segment)
			}
		}
		return trimmed, nil
	},
}

// requestPath is what a probe asks for.
var requestPath = &typ{
	name: "a path", schema: map[string]any{"type": "string", "pattern": `^/|\$\{`},
	parse: func(s scalar) (any, error) {
		text := s.String()
		if u, err := url.Parse(text); err == nil && u.Scheme != "" && u.Host != "" {
			return nil, fault{fmt.Sprintf("%q is a URL; the address is the instance's own", text), u.RequestURI()}
		}
		if !strings.HasPrefix(text, "/") {
			return nil, fault{fmt.Sprintf("%q does not begin with a slash", text), "/" + text}
		}
		if _, err := url.ParseRequestURI(text); err != nil || strings.ContainsAny(text, " #") {
			return nil, faultf("%q is not the path of a request", text)
		}
		return text, nil
	},
}

var cidr = &typ{
	name: "a network", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		prefix, err := netip.ParsePrefix(s.String())
		if err != nil {
			f := fault{message: fmt.Sprintf("%q is not a network like 10.0.0.0/8", s)}
			if ip, err := netip.ParseAddr(s.String()); err == nil && ip.Zone() == "" {
				f.suggestion = netip.PrefixFrom(ip, ip.BitLen()).String()
			}
			return nil, f
		}
		if prefix != prefix.Masked() {
			return nil, fault{fmt.Sprintf("%s is not the beginning of its network", s), prefix.Masked().String()}
		}
		return prefix.String(), nil
	},
}

// Field names are tokens (RFC 9110 §5.1, §5.6.2).
var fieldName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// framing are the fields that belong to one connection or to the message's own form (RFC 9110 §7.6.1, RFC 9112 §6).
var framing = []string{
	"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func checkHeaderName(name string) error {
	if !fieldName.MatchString(name) {
		return faultf("%q is not the name of a header", name)
	}
	if slices.Contains(framing, textproto.CanonicalMIMEHeaderKey(name)) {
		return faultf("%s belongs to the connection and is not for editing", name)
	}
	return nil
}

var headerName = &typ{
	name: "a header", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		if err := checkHeaderName(s.String()); err != nil {
			return nil, err
		}
		return textproto.CanonicalMIMEHeaderKey(s.String()), nil
	},
}

// headerValue is a field value (RFC 9110 §5.5).
var headerValue = &typ{
	name: "a string", yaml: "any", schema: map[string]any{"type": []string{"string", "number", "boolean"}},
	parse: func(s scalar) (any, error) {
		text := s.String()
		if strings.Trim(text, " \t") != text {
			return nil, faultf("%q has blanks at an end", text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, faultf("%q has control characters in it", text)
		}
		return text, nil
	},
}

var (
	userName = &typ{name: "a user", yaml: "any", schema: map[string]any{"type": []string{"string", "integer"}}, parse: func(s scalar) (any, error) {
		name := s.String()
		if _, err := user.Lookup(name); err == nil {
			return name, nil
		}
		if isID(name) {
			return name, nil
		}
		return nil, faultf("this machine has no user %q", name)
	}}
	groupName = &typ{name: "a group", yaml: "any", schema: map[string]any{"type": []string{"string", "integer"}}, parse: func(s scalar) (any, error) {
		name := s.String()
		if _, err := user.LookupGroup(name); err == nil {
			return name, nil
		}
		if isID(name) {
			return name, nil
		}
		return nil, faultf("this machine has no group %q", name)
	}}
)

// isID reports whether text is a number that a user or group can have; it needs no entry in a database.
func isID(text string) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	return err == nil && n < math.MaxUint32 && integerForm.MatchString(text)
}

// fileMode is permission bits in octal, as a string.
var fileMode = &typ{
	name: `permission bits like "0660"`, schema: map[string]any{"type": "string", "pattern": `^0?[0-7]{3}$|\$\{`},
	parse: func(s scalar) (any, error) {
		n, err := strconv.ParseUint(s.String(), 8, 32)
		if err != nil || n > 0o777 || len(s.String()) < 3 {
			return nil, faultf(`%q is not permission bits like "0660"`, s)
		}
		return uint32(n), nil
	},
}

// The names that a user gives: short, and fit for paths, labels and host names.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$`)

func checkName(name string) error {
	if len(name) > 63 || !nameForm.MatchString(name) {
		return faultf("%q is not a name: a to z, 0 to 9, - and _ within, at most 63", name)
	}
	return nil
}

func checkVariable(name string) error {
	if !envName.MatchString(name) {
		return faultf("%q is not the name of an environment variable", name)
	}
	return nil
}

// repository is where snapshots are kept. It becomes file:///absolute/path or s3://bucket/prefix?….
var repository = &typ{
	name: "a repository", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		text := s.String()
		scheme, rest, ok := strings.Cut(text, "://")
		switch {
		case !ok, scheme == "file":
			if !ok {
				rest = text
			}
			if _, err := parseText(literal(rest, "")); err != nil {
				return nil, faultf("%q is not a repository: it has no path", text)
			}
			if strings.ContainsAny(rest, "?#%") {
				return nil, faultf("%q is not a repository: a path with ?, # or %% in it cannot be one", text)
			}
			return "file://" + absolute(rest, s.directory), nil
		case scheme == "s3":
			return parseS3(text)
		}
		return nil, faultf("%q is not a repository like file:///mnt/backup or s3://bucket/prefix", text)
	},
}

var s3Options = []string{"endpoint", "region", "path_style"}

func parseS3(text string) (any, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Fragment != "" {
		return nil, faultf("%q is not a repository like s3://bucket/prefix", text)
	}
	if u.User != nil {
		return nil, faultf("credentials do not belong into a repository; S3's come from the environment")
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, faultf("%q is not a repository: what follows the ? is not of the form a=b&c=d", text)
	}
	for name, values := range options {
		if !slices.Contains(s3Options, name) {
			return nil, fault{fmt.Sprintf("unknown option %q; S3 has %s", name, listed(s3Options)), nearest(name, s3Options)}
		}
		if len(values) != 1 || values[0] == "" {
			return nil, faultf("the option %s needs one value", name)
		}
	}
	if endpoint := options.Get("endpoint"); endpoint != "" {
		if e, err := url.Parse(endpoint); err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" {
			return nil, faultf("the endpoint %q is not a URL like https://s3.example.com", endpoint)
		}
	}
	if style := options.Get("path_style"); style != "" && style != "true" && style != "false" {
		return nil, faultf("path_style is true or false")
	}
	return text, nil
}
