package bus

import (
	"fmt"
	"net"
	"strings"
)

// hostPort returns the host:port of a tcp:// endpoint. A host of * is every interface, which net.Listen
// takes an empty host for.
func hostPort(endpoint string) (string, error) {
	address, ok := strings.CutPrefix(endpoint, "tcp://")
	if !ok {
		return "", fmt.Errorf("endpoint %q: want tcp://host:port", endpoint)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || host == "" {
		return "", fmt.Errorf("endpoint %q: want tcp://host:port; the host * is every interface", endpoint)
	}
	if host == "*" {
		host = ""
	}
	return net.JoinHostPort(host, port), nil
}

// endpointOf returns the endpoint that a listener is bound to.
func endpointOf(a net.Addr) string {
	tcp := a.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		return fmt.Sprintf("tcp://*:%d", tcp.Port)
	}
	return "tcp://" + tcp.String()
}
