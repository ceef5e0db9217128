// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"net/http"
	"regexp"
)

const fhirType = "application/fhir+json"

// fhirID is what an id may be: FHIR R4, data type id.
var fhirID = regexp.MustCompile(`^[A-Za-z0-9\-.]{1,64}$`)

func (s *Sandbox) addFHIRRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /fhir/R4/{destination}/{environment}/Patient/{id}", s.handlePatient)
}

// handlePatient answers with a made-up patient, to a live token of an API key of the environment in the path.
func (s *Sandbox) handlePatient(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	id, environment := r.PathValue("id"), r.PathValue("environment")
	token, live := s.authenticate(r)
	allowed := live && environment == token.environment.Flag
	s.counters.access(areaFHIR, allowed)
	switch {
	case !live:
		x.say("rejected Patient/%s: no live access token", printable(id))
		challenge(w, r)
		operationOutcome(w, http.StatusUnauthorized, "login", "A live access token is required.")
	case !allowed:
		x.say("rejected Patient/%s: the token of client %s is for %s, the path says %s",
			printable(id), printable(token.clientID), printable(token.environment.Flag), printable(environment))
		operationOutcome(w, http.StatusForbidden, "forbidden", "The access token is for another environment.")
	case !fhirID.MatchString(id):
		x.say("rejected Patient/%s: not a FHIR id", printable(id))
		operationOutcome(w, http.StatusNotFound, "not-found", "There is no such patient.")
	default:
		x.say("Patient/%s read with a token issued %s to client %s", printable(id), s.age(token), printable(token.clientID))
		writeJSON(w, fhirType, http.StatusOK, patient(id))
	}
}

// patient gives a FHIR R4 Patient that nobody can take for a person: every ID has the same one, marked as test
// health data (HL7 ActReason HTEST).
func patient(id string) map[string]any {
	return map[string]any{
		"resourceType": "Patient",
		"id":           id,
		"meta": map[string]any{"security": []any{map[string]any{
			"system":  "http://terminology.hl7.org/CodeSystem/v3-ActReason",
			"code":    "HTEST",
			"display": "test health data",
		}}},
		"active":    true,
		"name":      []any{map[string]any{"use": "official", "family": "Sandbox", "given": []string{"Synthetic"}}},
		"gender":    "unknown",
		"birthDate": "1900-01-01",
	}
}

// operationOutcome answers with an error as FHIR does.
func operationOutcome(w http.ResponseWriter, status int, code, diagnostics string) {
	writeJSON(w, fhirType, status, map[string]any{
		"resourceType": "OperationOutcome",
		"issue":        []any{map[string]any{"severity": "error", "code": code, "diagnostics": diagnostics}},
	})
}
