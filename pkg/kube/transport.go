package kube

import (
	"net/http"
	"os"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// transporter makes the connections to the API server of a config.
type transporter func(*rest.Config) (http.RoundTripper, error)

// Patience with a connection, as client-go has it.
const (
	handshakeTimeout = 10 * time.Second
	// silence is how long a connection may be silent before the server is asked for a sign of life,
	// and signTimeout how long that may take.
	silence     = 30 * time.Second
	signTimeout = 15 * time.Second
)

// briefTransport is rest.TransportFor for a process that ends soon: it reads the file of the
// certificate authority once. Its HTTP/2 is that of net/http, which is linked anyway: client-go
// brings another one, of half a megabyte.
func briefTransport(config *rest.Config) (http.RoundTripper, error) {
	c, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := transport.TLSConfigFor(c)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy: c.Proxy, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: handshakeTimeout,
		DisableCompression: c.DisableCompression,
		ForceAttemptHTTP2:  os.Getenv("DISABLE_HTTP2") == "",
		HTTP2:              &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: signTimeout},
	}
	if c.DialHolder != nil { // what a credential plugin says ends its connections
		t.DialContext = c.DialHolder.Dial
	}
	return transport.HTTPWrappersForConfig(c, utilnet.SetOldTransportDefaults(t))
}
