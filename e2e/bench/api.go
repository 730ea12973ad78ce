package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/e2e/lab"
)

// roundTrips makes the two calls that no meta-plugin can do without, one after the other on a new
// connection: GET of a NAD, PATCH of the pod's status. The runtime tells of the pod.
func (b *bench) roundTrips(ctx context.Context) error {
	transport := b.transport()
	defer transport.CloseIdleConnections()
	if err := b.request(ctx, transport, http.MethodGet,
		"/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/n1"); err != nil {
		return err
	}
	return b.request(ctx, transport, http.MethodPatch,
		"/api/v1/namespaces/default/pods/"+podName(4)+"/status")
}

// transport is for connections to the API server.
func (b *bench) transport() *http.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.api.CA())
	return &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}
}

// request makes a call. A PATCH changes an annotation.
func (b *bench) request(ctx context.Context, transport *http.Transport, method, path string) error {
	body := ""
	if method == http.MethodPatch {
		// Each is a change, as an ADD's is: one that changes nothing is not stored.
		b.patches++
		body = fmt.Sprintf(`{"metadata":{"annotations":{"bench":"%d%s"}}}`,
			b.patches, strings.Repeat("x", 1000))
	}
	host, port := b.api.Address()
	req, err := http.NewRequestWithContext(ctx, method,
		"https://"+net.JoinHostPort(host, strconv.Itoa(port))+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.api.Token(lab.UserBraid))
	if body != "" {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close() //nolint:errcheck // read to its end
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %w %s", method, path, resp.Status, err, answer)
	}
	return nil
}
