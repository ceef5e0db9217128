// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// issuer stands for what signs JWTs that say who somebody is: GitHub, or a Nomad cluster.
type issuer struct {
	*httptest.Server
	mux    *http.ServeMux
	signer jose.Signer
}

// newIssuer starts one that publishes its keys as OpenID Connect says, and at a path.
func newIssuer(t testing.TB, jwksPath string) *issuer {
	t.Helper()
	key, _ := newPKCS8(t, "RS384")
	addKey(t, "issuer", key)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	i := &issuer{httptest.NewServer(mux), mux, signer}
	t.Cleanup(i.Close)
	i.serveJSON("/.well-known/openid-configuration", map[string]any{
		"issuer": i.URL, "jwks_uri": i.URL + jwksPath, "id_token_signing_alg_values_supported": []string{"RS256"},
	})
	i.serveJSON(jwksPath, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	return i
}

func (i *issuer) serveJSON(path string, value any) {
	i.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	})
}

// sign gives a JWT with some claims, and those that every JWT has.
func (i *issuer) sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	now := time.Now()
	all := map[string]any{"iss": i.URL, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	maps.Copy(all, claims)
	text, err := jwt.Signed(i.signer).Claims(all).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// changed gives claims of which one is another.
func changed(claims map[string]any, name string, value any) map[string]any {
	c := maps.Clone(claims)
	c[name] = value
	return c
}
