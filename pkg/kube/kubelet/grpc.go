package kubelet

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
)

// The gRPC status codes that are acted on.
const (
	grpcUnknown           = 2
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcUnavailable       = 14
)

const (
	grpcPrefix     = 5        // bytes before a message: compressed or not, and its length
	maxGRPCMessage = 16 << 20 // bytes; the kubelet's own bound
)

// grpcError is a call that the server answered with a status other than OK.
type grpcError struct {
	code    int
	message string
}

func (e *grpcError) Error() string {
	return fmt.Sprintf("gRPC status %d: %.500s", e.code, e.message)
}

// grpcCode returns the status in err's chain, 0 if there is none.
func grpcCode(err error) int {
	if e, ok := errors.AsType[*grpcError](err); ok {
		return e.code
	}
	return 0
}

// grpcConn makes unary gRPC calls over a unix socket: HTTP/2 without TLS, one POST a call, the
// status in the trailer (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
type grpcConn struct {
	transport *http.Transport
}

func newGRPC(socket string) *grpcConn {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &grpcConn{transport: &http.Transport{
		Protocols: &protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

func (g *grpcConn) close() { g.transport.CloseIdleConnections() }

// call sends one message and returns the one that answers it.
func (g *grpcConn) call(ctx context.Context, method string, message []byte) ([]byte, error) {
	framed := append(make([]byte, grpcPrefix, grpcPrefix+len(message)), message...)
	binary.BigEndian.PutUint32(framed[1:], uint32(len(message))) //nolint:gosec // a pod's name
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://localhost"+method, bytes.NewReader(framed))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", "braid")
	resp, err := g.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	if resp.StatusCode != http.StatusOK ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return nil, fmt.Errorf("HTTP status %d: no gRPC server", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, grpcPrefix+maxGRPCMessage+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if err := grpcStatus(resp); err != nil {
		return nil, err
	}
	return unframe(body)
}

// grpcStatus reads the trailer; a server that has nothing else to say sends it as header.
func grpcStatus(resp *http.Response) error {
	from := resp.Trailer
	if resp.Header.Get("Grpc-Status") != "" {
		from = resp.Header
	}
	code, err := strconv.Atoi(from.Get("Grpc-Status"))
	if err != nil {
		return errors.New("read answer: it has no gRPC status")
	}
	if code == 0 {
		return nil
	}
	message, err := url.PathUnescape(from.Get("Grpc-Message"))
	if err != nil {
		message = from.Get("Grpc-Message")
	}
	return &grpcError{code: code, message: message}
}

// unframe returns the message of an answer. A byte that is 0 unless it is compressed, and four of
// length, come before it.
func unframe(body []byte) ([]byte, error) {
	if len(body) < grpcPrefix || body[0] != 0 ||
		uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-grpcPrefix) {
		return nil, fmt.Errorf("read answer: %d bytes are not one uncompressed message of at most %d",
			len(body), maxGRPCMessage)
	}
	return body[grpcPrefix:], nil
}
