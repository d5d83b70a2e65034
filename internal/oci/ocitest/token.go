package ocitest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tokens is a server that hands out tokens for a registry, as Docker's own does:
// to those with the login, or to everybody where there is none.
type tokens struct {
	key            *ecdsa.PrivateKey
	cert           []byte // DER
	user, password string
}

// startTokens starts one and gives the registry's configuration for it.
func startTokens(t testing.TB, dir, user, password string) string {
	_, cert, key := certificates(t)
	block, _ := pem.Decode(key)
	parsed, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	certBlock, _ := pem.Decode(cert)
	s := &tokens{key: parsed, cert: certBlock.Bytes, user: user, password: password}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	bundle := filepath.Join(dir, "token.pem")
	write(t, bundle, cert)
	// A realm that is an address must be the registry's own.
	realm := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	return fmt.Sprintf("auth: {token: {realm: '%s/token', service: test, issuer: test, rootcertbundle: %s}}\n", realm, bundle)
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	if s.user != "" && given && (user != s.user || password != s.password) {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{} // nobody gets a token that allows nothing
	for _, scope := range r.URL.Query()["scope"] {
		parts := strings.Split(scope, ":")
		if len(parts) == 3 && (given || s.user == "") {
			granted = append(granted, access{parts[0], parts[1], strings.Split(parts[2], ",")})
		}
	}
	now := time.Now()
	token := s.sign(map[string]any{
		"iss": "test", "sub": user, "aud": "test", "exp": now.Add(time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "jti": "1", "access": granted,
	})
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 60})
}

// sign makes a JSON web token.
func (s *tokens) sign(claims map[string]any) string {
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.cert)}}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return ""
	}
	signature := make([]byte, 64)
	a.FillBytes(signature[:32])
	b.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
