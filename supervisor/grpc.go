package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// healthPath is the method of the gRPC health checking protocol
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
const healthPath = "/grpc.health.v1.Health/Check"

// askHealth asks the gRPC server at address how service is doing; an empty one means the server as a whole. Anything but SERVING is
// an error that says what was answered.
//
// The call is one POST over HTTP/2 without TLS, on a connection of its own, as gRPC over HTTP/2 has it
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func askHealth(ctx context.Context, address, service string) error {
	name := "grpc " + address
	if service != "" {
		name += " " + service
	}
	status, err := checkHealth(ctx, address, service)
	if err != nil {
		return fmt.Errorf("%s: %w", name, explain(ctx, err))
	}
	if status != "SERVING" {
		return fmt.Errorf("%s: %s", name, status)
	}
	return nil
}

func checkHealth(ctx context.Context, address, service string) (status string, err error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		DialContext: new(net.Dialer).DialContext, Protocols: &protocols,
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	defer transport.CloseIdleConnections()

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+healthPath, bytes.NewReader(healthRequest(service)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", "grpc-mainstay-probe/1")
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", notHTTP2(err)
	}
	defer res.Body.Close()
	if media := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(media, "application/grpc") {
		return "", fmt.Errorf("this is no gRPC server: it answers %s with content type %q", res.Status, media)
	}
	// The trailers, which tell how the call went, are known once the body has been read to its end.
	body, err := io.ReadAll(io.LimitReader(res.Body, answerLimit+1))
	if err != nil {
		return "", err
	}
	if len(body) > answerLimit {
		return "", errors.New("the answer is too long for one about health")
	}
	code, message := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
	if code == "" { // an answer of trailers only
		code, message = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
	}
	if code != "0" {
		return "", callError(code, message, service)
	}
	return healthStatus(body)
}

// notHTTP2 says plainly that a server does not speak HTTP/2.
func notHTTP2(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if text := err.Error(); strings.Contains(text, "http2: ") || strings.Contains(text, "HTTP/1.1 header") || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("it does not speak HTTP/2 without TLS: %w", err)
	}
	return err
}

// grpcCodes are the names of gRPC's status codes (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
func grpcCodes() []string {
	return []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
}

// callError tells of a call that ended with another status than OK.
func callError(code, message, service string) error {
	name := "status " + strconv.Quote(code)
	if n, err := strconv.Atoi(code); err == nil && n >= 0 && n < len(grpcCodes()) {
		name = grpcCodes()[n]
	}
	said := message
	if plain, err := url.PathUnescape(message); err == nil {
		said = plain
	}
	said = quoted([]byte(said[:min(len(said), answerLimit)]))
	switch name {
	case "UNIMPLEMENTED":
		return fmt.Errorf("UNIMPLEMENTED: the server has no health service, grpc.health.v1.Health%s", said)
	case "NOT_FOUND":
		return fmt.Errorf("SERVICE_UNKNOWN: the server knows no service %q%s", service, said)
	case `status ""`:
		return errors.New("the answer ended without a gRPC status")
	}
	return fmt.Errorf("%s%s", name, said)
}

// healthRequest is a HealthCheckRequest {string service = 1} as one message of a gRPC stream: not compressed, length, bytes.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = append(message, 1<<3|2) // field 1, length-delimited (https://protobuf.dev/programming-guides/encoding/)
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(framed, message...)
}

// healthStatus reads the ServingStatus of a HealthCheckResponse {ServingStatus status = 1} that is the one message of body. Other fields
// are skipped.
func healthStatus(body []byte) (string, error) {
	malformed := fmt.Errorf("the answer is no HealthCheckResponse: %q", body[:min(len(body), 64)])
	if len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
		return "", malformed
	}
	if body[0] != 0 {
		return "", errors.New("the answer is compressed, which was not asked for")
	}
	status := uint64(0)
	for message := body[5:]; len(message) > 0; {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return "", malformed
		}
		message = message[n:]
		skip := 0
		switch tag & 7 {
		case 0:
			value, n := binary.Uvarint(message)
			if n <= 0 {
				return "", malformed
			}
			if tag>>3 == 1 {
				status = value
			}
			skip = n
		case 1:
			skip = 8
		case 2:
			length, n := binary.Uvarint(message)
			if n <= 0 || length > uint64(len(message)) {
				return "", malformed
			}
			skip = n + int(length)
		case 5:
			skip = 4
		default:
			return "", malformed
		}
		if skip > len(message) {
			return "", malformed
		}
		message = message[skip:]
	}
	switch status {
	case 0:
		return "UNKNOWN", nil
	case 1:
		return "SERVING", nil
	case 2:
		return "NOT_SERVING", nil
	case 3:
		return "SERVICE_UNKNOWN", nil
	}
	return fmt.Sprintf("status %d", status), nil
}
