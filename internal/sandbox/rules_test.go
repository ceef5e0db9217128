// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"crypto/hmac"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// breach is a token request that breaks one rule, and what Redox documents for that.
type breach struct {
	name        string
	rule        rule
	description string
	form        url.Values
	contentType string // default: the right one
	body        string // instead of form
}

// headerBreach and claimBreach give requests whose assertion is right but for what is changed.
func headerBreach(r *rig, name string, rule rule, description string, header map[string]any) breach {
	return breach{name: name, rule: rule, description: description, form: form(sign(header, r.claims(), jose.RS384, rsaKey()))}
}

func claimBreach(name string, rule rule, description string, claims map[string]any) breach {
	return breach{name: name, rule: rule, description: description, form: form(sign(header(), claims, jose.RS384, rsaKey()))}
}

func formBreach(r *rig, name string, rule rule, description, parameter string, values ...string) breach {
	f := form(r.valid())
	f[parameter] = values
	return breach{name: name, rule: rule, description: description, form: f}
}

// breaches breaks each rule of the token endpoint but the ones about the API key's own setting.
func breaches(r *rig) []breach {
	notFound := "Public key not found, check client_id, kid and Redox dashboard settings"
	cases := []breach{
		{name: "body too large", rule: ruleBodySize, form: form(strings.Repeat("x", tokenBodyMax))},
		{name: "JSON body", rule: ruleContentType, description: "x-www-form-urlencoded content-type required", contentType: "application/json", body: `{"grant_type":"client_credentials"}`},
		{name: "no Content-Type", rule: ruleContentType, description: "x-www-form-urlencoded content-type required", contentType: "none", form: form(r.valid())},
		{name: "multipart", rule: ruleContentType, description: "x-www-form-urlencoded content-type required", contentType: "multipart/form-data; boundary=x", form: form(r.valid())},
		{name: "body no form", rule: ruleContentType, description: "x-www-form-urlencoded content-type required", body: "%zz"},
		{name: "empty form", rule: ruleGrantTypeMissing, description: "Missing grant_type parameter", body: ""},

		formBreach(r, "no grant_type", ruleGrantTypeMissing, "Missing grant_type parameter", "grant_type"),
		formBreach(r, "other grant_type", ruleGrantTypeOther, "The grant_type parameter should equal 'client_credentials'", "grant_type", "authorization_code"),
		formBreach(r, "grant_type twice", ruleGrantTypeOther, "The grant_type parameter should equal 'client_credentials'", "grant_type", grantType, grantType),
		formBreach(r, "no client_assertion_type", ruleAssertionTypeMissing, "Missing client assertion type", "client_assertion_type"),
		formBreach(r, "other client_assertion_type", ruleAssertionTypeOther, "Invalid client assertion type", "client_assertion_type", "jwt-bearer"),
		formBreach(r, "client_assertion_type twice", ruleAssertionTypeOther, "Invalid client assertion type", "client_assertion_type", assertionType, assertionType),
		formBreach(r, "no client_assertion", ruleAssertionMissing, "Missing client assertion", "client_assertion"),
		formBreach(r, "empty client_assertion", ruleAssertionMissing, "Missing client assertion", "client_assertion", ""),
		formBreach(r, "client_assertion twice", ruleAssertionMalformed, "", "client_assertion", r.valid(), r.valid()),

		formBreach(r, "not a JWT", ruleAssertionMalformed, "", "client_assertion", "nonsense"),
		formBreach(r, "five parts", ruleAssertionMalformed, "", "client_assertion", r.valid()+".a.b"),
		formBreach(r, "not base64url", ruleAssertionMalformed, "", "client_assertion", "!"+r.valid()),
		formBreach(r, "line end inside", ruleAssertionMalformed, "", "client_assertion", "\n"+r.valid()),
		formBreach(r, "signature not base64url", ruleAssertionMalformed, "", "client_assertion", r.valid()+"!"),
		formBreach(r, "header an array", ruleAssertionMalformed, "", "client_assertion", signText(`[]`, `{}`, jose.RS384, rsaKey())),
		formBreach(r, "claims a string", ruleAssertionMalformed, "", "client_assertion", signText(`{"alg":"RS384","kid":"rsa","typ":"JWT"}`, `"x"`, jose.RS384, rsaKey())),
		formBreach(r, "text after the header", ruleAssertionMalformed, "", "client_assertion", signText(`{"alg":"RS384","kid":"rsa","typ":"JWT"} x`, `{}`, jose.RS384, rsaKey())),
		formBreach(r, "claim twice", ruleIssMissing, "Unexpected iss claim value", "client_assertion", signText(`{"alg":"RS384","kid":"rsa","typ":"JWT"}`, `{"iss":"client","iss":"client"}`, jose.RS384, rsaKey())),
		formBreach(r, "header member twice", ruleAlgMissing, "Unexpected alg claim value", "client_assertion", signText(`{"alg":"RS384","alg":"RS384","kid":"rsa","typ":"JWT"}`, `{}`, jose.RS384, rsaKey())),
		formBreach(r, "undocumented claim twice", ruleAssertionMalformed, "", "client_assertion", signText(`{"alg":"RS384","kid":"rsa","typ":"JWT"}`, `{"x":1,"x":1}`, jose.RS384, rsaKey())),
		headerBreach(r, "crit", ruleAssertionMalformed, "", with(with(header(), "crit", []string{"b64"}), "b64", false)),

		headerBreach(r, "no kid", ruleKidMissing, "JWT header kid property is required", without(header(), "kid")),
		headerBreach(r, "empty kid", ruleKidMissing, "JWT header kid property is required", with(header(), "kid", "")),
		headerBreach(r, "kid a number", ruleKidMalformed, "Unexpected kid claim value", with(header(), "kid", 7)),
		headerBreach(r, "no alg", ruleAlgMissing, "Unexpected alg claim value", without(header(), "alg")),
		headerBreach(r, "alg null", ruleAlgMissing, "Unexpected alg claim value", with(header(), "alg", nil)),
		headerBreach(r, "no typ", ruleTypMissing, "Unexpected typ claim value", without(header(), "typ")),
		headerBreach(r, "typ a number", ruleTypMissing, "Unexpected typ claim value", with(header(), "typ", 1)),
		headerBreach(r, "typ at+jwt", ruleTypOther, "", with(header(), "typ", "at+jwt")),
		headerBreach(r, "typ in small letters", ruleTypOther, "", with(header(), "typ", "jwt")),
		headerBreach(r, "jku with a pasted JWK set", ruleJkuOther, "", with(header(), "jku", "https://example.com/jwks")),
		headerBreach(r, "jku a number", ruleJkuMalformed, "Unexpected jku claim value", with(header(), "jku", 1)),
		headerBreach(r, "unknown kid", ruleKidUnknown, notFound, with(header(), "kid", "another")),
		headerBreach(r, "kid of a key for another alg", ruleKidUnknown, notFound, with(header(), "kid", "ec")),

		claimBreach("no iss", ruleIssMissing, "Unexpected iss claim value", without(r.claims(), "iss")),
		claimBreach("iss a number", ruleIssMissing, "Unexpected iss claim value", with(r.claims(), "iss", 5)),
		claimBreach("iss empty", ruleIssMissing, "Unexpected iss claim value", with(r.claims(), "iss", "")),
		claimBreach("no sub", ruleSubMissing, "Unexpected sub claim value", without(r.claims(), "sub")),
		claimBreach("sub an array", ruleSubMissing, "Unexpected sub claim value", with(r.claims(), "sub", []string{testClient})),
		claimBreach("sub not iss", ruleSubOther, "", with(r.claims(), "sub", "another")),
		claimBreach("unknown client ID", ruleClientUnknown, notFound, with(with(r.claims(), "iss", "another"), "sub", "another")),
		claimBreach("no aud", ruleAudMissing, "Unexpected aud claim value", without(r.claims(), "aud")),
		claimBreach("aud a number", ruleAudMissing, "Unexpected aud claim value", with(r.claims(), "aud", 1)),
		claimBreach("aud null", ruleAudMissing, "Unexpected aud claim value", with(r.claims(), "aud", nil)),
		claimBreach("aud array of numbers", ruleAudMissing, "Unexpected aud claim value", with(r.claims(), "aud", []int{1})),
		claimBreach("aud the base URL", ruleAudOther, "", with(r.claims(), "aud", r.URL)),
		claimBreach("aud with a slash more", ruleAudOther, "", with(r.claims(), "aud", r.TokenURL()+"/")),
		claimBreach("aud two values", ruleAudOther, "", with(r.claims(), "aud", []string{r.TokenURL(), "https://example.com"})),
		claimBreach("aud empty array", ruleAudOther, "", with(r.claims(), "aud", []string{})),
		claimBreach("no iat", ruleIatMissing, "Unexpected iat claim value", without(r.claims(), "iat")),
		claimBreach("iat a string", ruleIatMissing, "Unexpected iat claim value", with(r.claims(), "iat", fmt.Sprint(r.clock.Now().Unix()))),
		claimBreach("iat null", ruleIatMissing, "Unexpected iat claim value", with(r.claims(), "iat", nil)),
		claimBreach("iat absurd", ruleIatMissing, "Unexpected iat claim value", with(r.claims(), "iat", 1e300)),
		claimBreach("no exp", ruleExpMissing, "Unexpected exp claim value", without(r.claims(), "exp")),
		claimBreach("exp a string", ruleExpMissing, "Unexpected exp claim value", with(r.claims(), "exp", fmt.Sprint(r.clock.Now().Unix()+60))),
		claimBreach("no jti", ruleJtiMissing, "Unexpected jti claim value", without(r.claims(), "jti")),
		claimBreach("jti empty", ruleJtiMissing, "Unexpected jti claim value", with(r.claims(), "jti", "")),
		claimBreach("jti a number", ruleJtiMissing, "Unexpected jti claim value", with(r.claims(), "jti", 1)),

		formBreach(r, "another key's signature", ruleSignature, "", "client_assertion", sign(header(), r.claims(), jose.RS384, otherRSAKey())),
		formBreach(r, "RS256 signature under RS384", ruleSignature, "", "client_assertion", sign(header(), r.claims(), jose.RS256, rsaKey())),
		formBreach(r, "no signature", ruleSignature, "", "client_assertion", sign(header(), r.claims(), "none", nil)),
		formBreach(r, "changed claims", ruleSignature, "", "client_assertion", changedClaims(r)),
	}
	cases = append(cases, timeBreaches(r)...)
	for _, algorithm := range []string{"none", "None", "RS256", "RS512", "PS384", "ES256", "ES512", "EdDSA", "HS384", "rs384", ""} {
		cases = append(cases, headerBreach(r, "alg "+algorithm, ruleAlgOther, "", with(header(), "alg", algorithm)))
	}
	return append(cases, formBreach(r, "HS384 keyed with the public key", ruleAlgOther, "", "client_assertion", keyConfusion(r)))
}

// timeBreaches steps just past the edges of the windows; TestTimeWindows shows that the edges themselves are in.
func timeBreaches(r *rig) []breach {
	var cases []breach
	for _, c := range []struct {
		name     string
		rule     rule
		iat, exp int64
	}{
		{"iat 311 s ago", ruleIatPast, -311, -11},
		{"iat 11 s in the future", ruleIatFuture, 11, 60},
		{"iat 301 s before exp", ruleIatBeforeExp, -100, 201},
		{"iat 1 s ago, exp 300 s ahead", ruleIatBeforeExp, -1, 300},
		{"exp now", ruleExpPast, -60, 0},
		{"exp 311 s ahead", ruleExpFuture, 0, 311},
		{"exp before iat", ruleExpPast, -5, -6},
	} {
		now := r.clock.Now().Unix()
		cases = append(cases, claimBreach(c.name, c.rule, "", with(with(r.claims(), "iat", now+c.iat), "exp", now+c.exp)))
	}
	return cases
}

// changedClaims gives a valid assertion whose claims were changed after it was signed.
func changedClaims(r *rig) string {
	parts := strings.Split(r.valid(), ".")
	parts[1] = encode(must(json.Marshal(with(r.claims(), "jti", "another"))))
	return strings.Join(parts, ".")
}

// keyConfusion gives an assertion under HS384, with the public key's PEM as the secret.
func keyConfusion(r *rig) string {
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(rsaKey().Public()))})
	input := encode(must(json.Marshal(with(header(), "alg", "HS384")))) + "." + encode(must(json.Marshal(r.claims())))
	mac := hmac.New(sha512.New384, secret)
	mac.Write([]byte(input))
	return input + "." + encode(mac.Sum(nil))
}

func TestEachRuleBroken(t *testing.T) {
	r := newRig(t)
	tested := map[rule]bool{
		// These need another API key or time: the tests of these names.
		ruleJWKSUnreadable: true, // TestJWKSURL
		ruleJtiReplayed:    true, // TestReplay
	}
	for _, c := range breaches(r) {
		tested[c.rule] = true
		t.Run(c.name, func(t *testing.T) {
			r.ResetCounters()
			contentType, body := formType, c.form.Encode()
			switch c.contentType {
			case "":
			case "none":
				contentType = ""
			default:
				contentType = c.contentType
			}
			if c.form == nil {
				body = c.body
			}
			got, err := r.do(t.Context(), http.MethodPost, tokenPath, contentType, "", body)
			if err != nil {
				t.Fatal(err)
			}
			want := rejections[c.rule]
			if got.status != want.Status || got.fields["error"] != "invalid_request" || got.fields["error_description"] != c.description {
				t.Errorf("got %d %v %q, want %d %q\n%s", got.status, got.fields["error"], got.fields["error_description"], want.Status, c.description, lastLine(r))
			}
			if uri, _ := got.fields["error_uri"].(string); !strings.HasPrefix(uri, "https://docs.redoxengine.com/") {
				t.Errorf("error_uri is %q", uri)
			}
			if want.Description != c.description {
				t.Errorf("the table of rules says %q", want.Description)
			}
			if fired := r.firedRule(contentType, body); fired != c.rule {
				t.Errorf("rejected for another rule: %s", rejections[fired].Broken)
			}
			counters := r.Counters().Token
			key := c.description
			if key == "" {
				key = emptyDescription
			}
			if counters.Requests != 1 || counters.Rejected[key] != 1 || counters.Issued != 0 {
				t.Errorf("counters are %+v", counters)
			}
			if line := lastLine(r); !strings.Contains(line, "token     rejected: "+key) {
				t.Errorf("the log says %q", line)
			}
		})
	}
	for i, of := range Rejections() {
		if of.Broken == "" || !tested[rule(i)] {
			t.Errorf("rule %d (%s) is tested nowhere", i, of.Broken)
		}
	}
}

// firedRule gives the rule that rejects a token request: many share the empty description.
func (r *rig) firedRule(contentType, body string) rule {
	if len(body) > tokenBodyMax {
		return ruleBodySize
	}
	request := httptest.NewRequest(http.MethodPost, tokenPath, strings.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	form, broken := readForm(request)
	if broken == nil {
		_, _, broken = r.checkAssertion(r.t.Context(), &exchange{now: r.clock.Now()}, form.Get("client_assertion"))
	}
	if broken == nil {
		r.t.Fatal("not rejected")
	}
	return broken.rule
}

func lastLine(r *rig) string {
	lines := strings.Split(strings.TrimSpace(r.log.String()), "\n")
	return lines[len(lines)-1]
}

func TestLiberalWhereAllowed(t *testing.T) {
	r := newRig(t)
	now := r.clock.Now().Unix()
	for name, claims := range map[string]map[string]any{
		"aud an array of one":   with(r.claims(), "aud", []string{r.TokenURL()}),
		"fractions of a second": with(with(r.claims(), "iat", float64(now)+0.5), "exp", float64(now)+60.25),
		"further claims":        with(r.claims(), "name", "anything"),
	} {
		if got := r.post(form(sign(header(), claims, jose.RS384, rsaKey()))); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.status, lastLine(r))
		}
	}
	got, err := r.do(t.Context(), http.MethodPost, tokenPath, formType+"; charset=UTF-8", "", form(r.valid()).Encode())
	if err != nil || got.status != http.StatusOK {
		t.Errorf("charset: %d %v", got.status, err)
	}
	if got, err := r.do(t.Context(), http.MethodGet, tokenPath+"?"+form(r.valid()).Encode(), "", "", ""); err != nil || got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d %v", got.status, err)
	}
}

// TestTimeWindows stands on both sides of each edge, to the second.
func TestTimeWindows(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name     string
		iat, exp int64
		ok       bool
	}{
		{"iat 9 s in the future", 9, 60, true},
		{"iat 10 s in the future", 10, 60, true},
		{"iat 11 s in the future", 11, 60, false},
		{"iat 299 s ago", -299, 1, true},
		{"exp 1 s ago, within any skew", -200, -1, false},
		{"exp 300 s after iat", -100, 200, true},
		{"exp 301 s after iat", -100, 201, false},
		{"exp 300 s ahead", 0, 300, true},
		{"exp 310 s ahead, by a clock 10 s fast", 10, 310, true},
		{"exp 311 s ahead, by a clock 11 s fast", 11, 311, false},
	} {
		now := r.clock.Now().Unix()
		claims := with(with(r.claims(), "iat", now+c.iat), "exp", now+c.exp)
		got := r.post(form(sign(header(), claims, jose.RS384, rsaKey())))
		if ok := got.status == http.StatusOK; ok != c.ok {
			t.Errorf("%s: %d %s", c.name, got.status, lastLine(r))
		}
	}
}

// TestTimesOneByOne asks the windows directly: over HTTP, other windows hide some edges.
func TestTimesOneByOne(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name     string
		iat, exp int64
		want     *rejection
	}{
		{"iat 310 s ago is too old only by its exp", -310, -10, &rejection{rule: ruleExpPast}},
		{"iat 311 s ago", -311, -11, &rejection{rule: ruleIatPast}},
		{"iat 10 s ahead", 10, 310, nil},
		{"iat 11 s ahead", 11, 311, &rejection{rule: ruleIatFuture}},
		{"exp 311 s ahead", 10, 311, &rejection{rule: ruleExpFuture}},
	} {
		now := r.clock.Now()
		var a assertion
		raw := members{"iat": json.RawMessage(fmt.Sprint(now.Unix() + c.iat)), "exp": json.RawMessage(fmt.Sprint(now.Unix() + c.exp))}
		got := a.readTimes(raw, now)
		if (got == nil) != (c.want == nil) || got != nil && got.rule != c.want.rule {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestReplay(t *testing.T) {
	r := newRig(t)
	claims := with(r.claims(), "jti", "once")
	first := sign(header(), claims, jose.RS384, rsaKey())
	if got := r.post(form(first)); got.status != http.StatusOK {
		t.Fatalf("first: %d %s", got.status, lastLine(r))
	}
	for name, assertion := range map[string]string{
		"the same assertion":       first,
		"another of the same jti":  sign(header(), with(r.claims(), "jti", "once"), jose.RS384, rsaKey()),
		"the same jti, other key":  sign(map[string]any{"alg": "ES384", "kid": "ec", "typ": "JWT"}, claims, jose.ES384, ecKey()),
		"a string that reads same": signText(`{"alg":"RS384","kid":"rsa","typ":"JWT"}`, strings.Replace(string(must(json.Marshal(claims))), `"once"`, `"\u006fnce"`, 1), jose.RS384, rsaKey()),
	} {
		got := r.post(form(assertion))
		if got.status != rejections[ruleJtiReplayed].Status || got.fields["error_description"] != "" || !strings.Contains(lastLine(r), "the jti was used before") {
			t.Errorf("%s: %d %s", name, got.status, lastLine(r))
		}
	}
	// Another client may use the same jti: it is a nonce per issuer.
	r.CreateAPIKey(APIKey{ID: "second", JWKSet: jwkSet(publicJWK(rsaKey().Public(), "rsa"))})
	if got := r.post(form(sign(header(), with(with(claims, "iss", "second"), "sub", "second"), jose.RS384, rsaKey()))); got.status != http.StatusOK {
		t.Errorf("another client: %d %s", got.status, lastLine(r))
	}
	r.clock.advance(119e9)
	if got := r.post(form(sign(header(), with(r.claims(), "jti", "once"), jose.RS384, rsaKey()))); got.status == http.StatusOK {
		t.Error("the jti was taken again before the first assertion expired")
	}
	r.clock.advance(1e9)
	if got := r.post(form(sign(header(), with(r.claims(), "jti", "once"), jose.RS384, rsaKey()))); got.status != http.StatusOK {
		t.Errorf("after the first assertion expired: %d %s", got.status, lastLine(r))
	}
}

// TestRejectedAssertionUsesNoNonce: who corrects the mistake may keep the jti.
func TestRejectedAssertionUsesNoNonce(t *testing.T) {
	r := newRig(t)
	claims := r.claims()
	r.post(form(sign(header(), with(claims, "aud", "https://example.com"), jose.RS384, rsaKey())))
	if got := r.post(form(sign(header(), claims, jose.RS384, rsaKey()))); got.status != http.StatusOK {
		t.Errorf("got %d %s", got.status, lastLine(r))
	}
}

// jwksServer serves what handle answers, and gives its URL.
func jwksServer(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL + "/jwks"
}

func TestJWKSURL(t *testing.T) {
	r := newRig(t)
	good := jwkSet(publicJWK(rsaKey().Public(), "rsa"))
	unreachable := httptest.NewServer(http.NotFoundHandler())
	unreachable.Close()
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc // nil: nothing listens
		rule   rule
		ok     bool
		fetch  FetchCounters
	}{
		{"readable", func(w http.ResponseWriter, request *http.Request) {
			if len(request.Header["Authorization"]) > 0 {
				http.Error(w, "no authentication expected", http.StatusBadRequest)
			}
			_, _ = w.Write(good)
		}, 0, true, FetchCounters{Succeeded: 1}},
		{"without the kid", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) }, ruleKidUnknown, false, FetchCounters{Succeeded: 1}},
		{"404", http.NotFound, ruleJWKSUnreadable, false, FetchCounters{Failed: 1}},
		{"redirect", func(w http.ResponseWriter, request *http.Request) {
			http.Redirect(w, request, "/elsewhere", http.StatusFound)
		}, ruleJWKSUnreadable, false, FetchCounters{Failed: 1}},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>sign in</html>")) }, ruleJWKSUnreadable, false, FetchCounters{Failed: 1}},
		{"not a JWK set", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[1]`)) }, ruleJWKSUnreadable, false, FetchCounters{Succeeded: 1}},
		{"too large", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", jwksMax) + string(good)))
		}, ruleJWKSUnreadable, false, FetchCounters{Failed: 1}},
		{"truncated", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000")
			_, _ = w.Write(good)
			panic(http.ErrAbortHandler)
		}, ruleJWKSUnreadable, false, FetchCounters{Failed: 1}},
		{"nothing listens", nil, ruleJWKSUnreadable, false, FetchCounters{Failed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			location := unreachable.URL
			if c.handle != nil {
				location = jwksServer(t, c.handle)
			}
			if err := r.SetJWKSURL(testClient, location); err != nil {
				t.Fatal(err)
			}
			r.ResetCounters()
			// The jku header equals the JWKS URL, or is left out: both go.
			got := r.post(form(sign(with(header(), "jku", location), r.claims(), jose.RS384, rsaKey())))
			if fetches := r.Counters().JWKSFetches; fetches != c.fetch {
				t.Errorf("counted %+v, want %+v", fetches, c.fetch)
			}
			again := r.post(form(r.valid()))
			if (got.status == http.StatusOK) != c.ok || again.status != got.status {
				t.Fatalf("got %d and %d: %s", got.status, again.status, lastLine(r))
			}
			if !c.ok && (got.status != rejections[c.rule].Status || got.fields["error_description"] != publicKeyNotFound) {
				t.Errorf("got %d %v", got.status, got.fields)
			}
		})
	}
	for _, jku := range []string{"https://example.com/jwks", unreachable.URL + "/", strings.ToUpper(unreachable.URL)} {
		got := r.post(form(sign(with(header(), "jku", jku), r.claims(), jose.RS384, rsaKey())))
		if got.status != rejections[ruleJkuOther].Status || got.fields["error_description"] != "" {
			t.Errorf("jku %s: %d %v", jku, got.status, got.fields)
		}
	}
}

// TestAPIKeyKeys: what an API key's own JWK set does to an assertion that is right.
func TestAPIKeyKeys(t *testing.T) {
	r := newRig(t)
	private := must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: rsaKey(), KeyID: "rsa"}}}))
	encryption := publicJWK(rsaKey().Public(), "rsa")
	encryption.Use = "enc"
	otherAlgorithm := publicJWK(rsaKey().Public(), "rsa")
	otherAlgorithm.Algorithm = "RS256"
	for name, c := range map[string]struct {
		set json.RawMessage
		ok  bool
	}{
		"the key":                          {jwkSet(publicJWK(rsaKey().Public(), "rsa")), true},
		"among unreadable ones":            {json.RawMessage(`{"keys":[{"kty":"future","kid":"x"}, 5, ` + string(must(json.Marshal(publicJWK(rsaKey().Public(), "rsa")))) + `]}`), true},
		"two of one kid, one is it":        {jwkSet(publicJWK(otherRSAKey().Public(), "rsa"), publicJWK(rsaKey().Public(), "rsa")), true},
		"nothing":                          {nil, false},
		"an empty set":                     {jwkSet(), false},
		"a broken set":                     {json.RawMessage(`{"keys":`), false},
		"a private key":                    {private, false},
		"an unreadable key of this kid":    {json.RawMessage(`{"keys":[{"kty":"RSA","kid":"rsa"}]}`), false},
		"a key for encryption":             {jwkSet(encryption), false},
		"a key for another alg":            {jwkSet(otherAlgorithm), false},
		"a P-256 key under the RSA's kid":  {jwkSet(publicJWK(p256Key().Public(), "rsa")), false},
		"a P-384 key under the RSA's kid":  {jwkSet(publicJWK(ecKey().Public(), "rsa")), false},
		"a symmetric key of the RSA's kid": {json.RawMessage(`{"keys":[{"kty":"oct","kid":"rsa","k":"c2VjcmV0"}]}`), false},
	} {
		r.CreateAPIKey(APIKey{ID: testClient, JWKSet: c.set})
		got := r.post(form(r.valid()))
		if (got.status == http.StatusOK) != c.ok {
			t.Errorf("%s: %d %s", name, got.status, lastLine(r))
		}
		if !c.ok && got.fields["error_description"] != publicKeyNotFound {
			t.Errorf("%s: %v", name, got.fields)
		}
		if name == "a private key" && !strings.Contains(lastLine(r), "not a readable public key") {
			t.Errorf("the log says %q", lastLine(r))
		}
	}
	r.CreateAPIKey(APIKey{ID: testClient, JWKSet: jwkSet(publicJWK(p256Key().Public(), "ec"))})
	got := r.post(form(sign(map[string]any{"alg": "ES384", "kid": "ec", "typ": "JWT"}, r.claims(), jose.ES384, p256Key())))
	if got.status != rejections[ruleSignature].Status {
		t.Errorf("ES384 with P-256: %d %s", got.status, lastLine(r))
	}
}
