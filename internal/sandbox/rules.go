// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import "net/http"

// rule names one rule of the token endpoint that a request can break.
type rule int

const (
	ruleBodySize rule = iota
	ruleContentType
	ruleGrantTypeMissing
	ruleGrantTypeOther
	ruleAssertionTypeMissing
	ruleAssertionTypeOther
	ruleAssertionMissing
	ruleAssertionMalformed
	ruleKidMissing
	ruleKidMalformed
	ruleAlgMissing
	ruleAlgOther
	ruleTypMissing
	ruleTypOther
	ruleIssMissing
	ruleSubMissing
	ruleSubOther
	ruleClientUnknown
	ruleJkuMalformed
	ruleJkuOther
	ruleJWKSUnreadable
	ruleKidUnknown
	ruleSignature
	ruleAudMissing
	ruleAudOther
	ruleIatMissing
	ruleExpMissing
	ruleIatPast
	ruleIatFuture
	ruleExpPast
	ruleExpFuture
	ruleIatBeforeExp
	ruleJtiMissing
	ruleJtiReplayed
	ruleCount
)

// publicKeyNotFound is Redox's answer to a wrong client ID and to every reason not to find the key.
const publicKeyNotFound = "Public key not found, check client_id, kid and Redox dashboard settings"

// Rejection is what the token endpoint answers when a rule is broken.
type Rejection struct {
	Broken      string // the rule, in words
	Status      int
	Description string // error_description
}

// rejections is the one table of rules, in the order they are checked, and answers.
//
// The descriptions are the documented ones. Redox documents no HTTP status: here what it can't authenticate (no
// key found, bad signature) is 401 and the rest 400, so that clients meet both. Redox documents the empty
// description for a wrong value (it names aud, alg and jti) and for an iat out of its window; what is wrong in
// value and listed nowhere (an unreadable JWT, typ, jku, sub, exp, the signature) is answered likewise.
var rejections = [ruleCount]Rejection{
	ruleBodySize:             {"the body is at most 64 KiB", http.StatusRequestEntityTooLarge, ""},
	ruleContentType:          {"Content-Type is application/x-www-form-urlencoded", http.StatusBadRequest, "x-www-form-urlencoded content-type required"},
	ruleGrantTypeMissing:     {"grant_type is present", http.StatusBadRequest, "Missing grant_type parameter"},
	ruleGrantTypeOther:       {"grant_type is client_credentials", http.StatusBadRequest, "The grant_type parameter should equal 'client_credentials'"},
	ruleAssertionTypeMissing: {"client_assertion_type is present", http.StatusBadRequest, "Missing client assertion type"},
	ruleAssertionTypeOther:   {"client_assertion_type is the JWT bearer URN", http.StatusBadRequest, "Invalid client assertion type"},
	ruleAssertionMissing:     {"client_assertion is present", http.StatusBadRequest, "Missing client assertion"},
	ruleAssertionMalformed:   {"client_assertion is a JWT", http.StatusBadRequest, ""},
	ruleKidMissing:           {"header kid is present", http.StatusBadRequest, "JWT header kid property is required"},
	ruleKidMalformed:         {"header kid is a string", http.StatusBadRequest, "Unexpected kid claim value"},
	ruleAlgMissing:           {"header alg is a string", http.StatusBadRequest, "Unexpected alg claim value"},
	ruleAlgOther:             {"header alg is RS384 or ES384", http.StatusBadRequest, ""},
	ruleTypMissing:           {"header typ is a string", http.StatusBadRequest, "Unexpected typ claim value"},
	ruleTypOther:             {"header typ is JWT", http.StatusBadRequest, ""},
	ruleIssMissing:           {"claim iss is a string", http.StatusBadRequest, "Unexpected iss claim value"},
	ruleSubMissing:           {"claim sub is a string", http.StatusBadRequest, "Unexpected sub claim value"},
	ruleSubOther:             {"claim sub equals iss", http.StatusBadRequest, ""},
	ruleClientUnknown:        {"claim iss is an API key's client ID", http.StatusUnauthorized, publicKeyNotFound},
	ruleJkuMalformed:         {"header jku, when present, is a string", http.StatusBadRequest, "Unexpected jku claim value"},
	ruleJkuOther:             {"header jku, when present, is the API key's JWKS URL", http.StatusBadRequest, ""},
	ruleJWKSUnreadable:       {"the API key's JWK set can be read", http.StatusUnauthorized, publicKeyNotFound},
	ruleKidUnknown:           {"header kid names a key of the API key's JWK set", http.StatusUnauthorized, publicKeyNotFound},
	ruleSignature:            {"the signature is of the key that kid names", http.StatusUnauthorized, ""},
	ruleAudMissing:           {"claim aud is a string, or an array of strings", http.StatusBadRequest, "Unexpected aud claim value"},
	ruleAudOther:             {"claim aud is the token URL alone", http.StatusBadRequest, ""},
	ruleIatMissing:           {"claim iat is a number", http.StatusBadRequest, "Unexpected iat claim value"},
	ruleExpMissing:           {"claim exp is a number", http.StatusBadRequest, "Unexpected exp claim value"},
	ruleIatPast:              {"claim iat is within the past 5 minutes, and 10 s", http.StatusBadRequest, ""},
	ruleIatFuture:            {"claim iat is at most 10 s in the future", http.StatusBadRequest, ""},
	ruleExpPast:              {"claim exp is in the future", http.StatusBadRequest, ""},
	ruleExpFuture:            {"claim exp is at most 5 minutes, and 10 s, in the future", http.StatusBadRequest, ""},
	ruleIatBeforeExp:         {"claim iat is at most 5 minutes before exp", http.StatusBadRequest, ""},
	ruleJtiMissing:           {"claim jti is a string, not empty", http.StatusBadRequest, "Unexpected jti claim value"},
	ruleJtiReplayed:          {"claim jti was not used in a live assertion", http.StatusBadRequest, ""},
}

// Rejections gives every rule of the token endpoint, in the order they are checked, with the answer to its breach.
func Rejections() []Rejection { return append([]Rejection(nil), rejections[:]...) }

// rejection is one request's breach: the rule, and what was really wrong, for the log.
type rejection struct {
	rule rule
	why  string
}
