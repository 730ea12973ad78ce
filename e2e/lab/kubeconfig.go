package lab

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// credential is what a user shows to the API server: a token, or a certificate with its key.
type credential struct {
	token   string
	certPEM []byte
	keyPEM  []byte
}

// writeKubeconfig writes a kubeconfig that needs no file beside it, so that it can be copied into a
// node.
func writeKubeconfig(path, server string, caPEM []byte, user string, c credential) error {
	b64 := base64.StdEncoding.EncodeToString
	auth := "token: " + c.token
	if c.token == "" {
		auth = fmt.Sprintf("client-certificate-data: %s\n    client-key-data: %s",
			b64(c.certPEM), b64(c.keyPEM))
	}
	config := strings.NewReplacer("SERVER", server, "AUTHORITY", b64(caPEM), "USER", user, "AUTH",
		auth).Replace(
		`apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster:
    server: SERVER
    certificate-authority-data: AUTHORITY
contexts:
- name: lab
  context:
    cluster: lab
    user: "USER"
users:
- name: "USER"
  user:
    AUTH
`)
	if err := replaceFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write kubeconfig of %s: %w", user, err)
	}
	return nil
}
