package lab

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// ExpiredToken returns a service account's token as it would be if it had ended an hour ago.
// Waiting for the end of one takes ten minutes at least.
func (a *API) ExpiredToken(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("age token: it is no JWT")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", fmt.Errorf("age token: %w", err)
	}
	claims := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &claims); err != nil {
		return "", fmt.Errorf("age token: %w", err)
	}
	ended := time.Now().Add(-time.Hour).Unix()
	for claim, at := range map[string]int64{"exp": ended, "iat": ended - 3600, "nbf": ended - 3600} {
		claims[claim] = fmt.Append(nil, at)
	}
	if text, err = json.Marshal(claims); err != nil {
		return "", fmt.Errorf("age token: %w", err)
	}
	return a.signToken(parts[0] + "." + base64.RawURLEncoding.EncodeToString(text))
}

// signToken adds the signature (ES256) of the key for service accounts' tokens.
func (a *API) signToken(unsigned string) (string, error) {
	text, err := os.ReadFile(a.dir.file("service-account.key"))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("sign token: the key is not in PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	sum := sha256.Sum256([]byte(unsigned))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return unsigned + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}
