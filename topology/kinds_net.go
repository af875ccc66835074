package topology

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The kinds of scalars that are addresses.

// listenAddress is host:port to listen on; without a host, every interface. hostAddress is host:port to connect to.
var (
	listenAddress = &typ{
		name: "an address", yaml: "any", schema: addressSchema,
		parse: func(s scalar) (any, error) {
			if strings.HasPrefix(s.String(), ":") {
				_, err := parseAddress("0.0.0.0" + s.String())
				return s.String(), err
			}
			return parseAddress(s.String())
		},
	}
	hostAddress = &typ{
		name: "an address", yaml: "any", schema: addressSchema,
		parse: func(s scalar) (any, error) { return parseAddress(s.String()) },
	}
	addressSchema = map[string]any{"type": "string", "pattern": `:[0-9]+$|\$\{`}
)

var hostLabels = regexp.MustCompile(`^([A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?\.?$`)

func parseAddress(text string) (any, error) {
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
	if _, err := parseAddress(filled); err != nil {
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
		if _, err := parseAddress(rest); err != nil {
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
