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
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.api.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	host, port := b.api.Address()
	for _, call := range []struct{ method, path, contentType, body string }{
		{http.MethodGet, "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/n1", "", ""},
		{
			http.MethodPatch, "/api/v1/namespaces/default/pods/" + podName(4) + "/status", "application/merge-patch+json",
			`{"metadata":{"annotations":{"bench":"` + strings.Repeat("x", 1000) + `"}}}`,
		},
	} {
		req, err := http.NewRequestWithContext(ctx, call.method, "https://"+net.JoinHostPort(host, strconv.Itoa(port))+call.path, strings.NewReader(call.body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+b.api.Token(lab.UserBraid))
		if call.contentType != "" {
			req.Header.Set("Content-Type", call.contentType)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close() //nolint:errcheck // read to its end
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %s: %s: %w %s", call.method, call.path, resp.Status, err, body)
		}
	}
	return nil
}
