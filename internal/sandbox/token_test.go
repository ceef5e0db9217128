// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestTokenIsIssued(t *testing.T) {
	r := newRig(t)
	for name, assertion := range map[string]string{
		"RS384": r.valid(),
		"ES384": sign(map[string]any{"alg": "ES384", "kid": "ec", "typ": "JWT"}, r.claims(), jose.ES384, ecKey()),
	} {
		t.Run(name, func(t *testing.T) {
			got := r.post(form(assertion))
			token, _ := got.fields["access_token"].(string)
			if got.status != http.StatusOK || !strings.HasPrefix(token, TokenPrefix) || !r.IsLive(token) {
				t.Fatalf("got %d, token with prefix %v, live %v\n%s", got.status, strings.HasPrefix(token, TokenPrefix), r.IsLive(token), r.log)
			}
			if got.fields["token_type"] != "Bearer" || got.fields["expires_in"] != 300.0 || got.fields["scope"] != "" {
				t.Errorf("got type %v, expires_in %v, scope %v", got.fields["token_type"], got.fields["expires_in"], got.fields["scope"])
			}
			if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("got headers %v", got.header)
			}
			if date := got.header.Get("Date"); date != "Sun, 01 Mar 2026 12:00:00 GMT" {
				t.Errorf("Date is %q, not the sandbox's clock", date)
			}
			if r.IsLive(token + "x") {
				t.Error("another token is live, too")
			}
		})
	}
}

func TestTokenExpires(t *testing.T) {
	r := newRig(t)
	token := r.token()
	r.clock.advance(300*time.Second - 1)
	if !r.IsLive(token) {
		t.Error("the token died before 300 s")
	}
	r.clock.advance(1)
	if r.IsLive(token) {
		t.Error("the token lives after 300 s")
	}
}
