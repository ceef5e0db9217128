// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// row is one field of a stored record: it makes the request's and the response's schema, and reads and writes the
// record.
type row[T any] struct {
	name        string
	kind        framework.FieldType
	title       string // for Vault's UI
	description string
	// at points to the field: *string, *bool, *int or *time.Duration, as kind says.
	at func(*T) any
}

// rowSchemas returns the rows' field schemas, with their defaults as they are in defaults. The descriptions name the
// defaults, too: Vault's path-help shows them nowhere else.
func rowSchemas[T any](rows []row[T], defaults *T) map[string]*framework.FieldSchema {
	schemas := make(map[string]*framework.FieldSchema, len(rows))
	for _, r := range rows {
		schema := &framework.FieldSchema{
			Type:         r.kind,
			Description:  r.description,
			DisplayAttrs: &framework.DisplayAttributes{Name: r.title},
		}
		if value := r.value(defaults); value != "" && value != false && value != 0 {
			schema.Default = value
			if r.kind == framework.TypeDurationSecond { // a string in OpenAPI, so its default has to be one
				schema.Default = fmt.Sprintf("%vs", value)
			}
			schema.Description += fmt.Sprintf(" Default: %v.", schema.Default)
		}
		schemas[r.name] = schema
	}
	return schemas
}

// value returns the field in the form that Vault decodes and answers: durations in whole seconds.
func (r *row[T]) value(record *T) any {
	switch field := r.at(record).(type) {
	case *string:
		return *field
	case *bool:
		return *field
	case *int:
		return *field
	case *time.Duration:
		return int(*field / time.Second)
	default:
		return nil
	}
}

// set is the reverse of value. It reports whether the value was of the field's type.
func (r *row[T]) set(record *T, value any) (ok bool) {
	switch field := r.at(record).(type) {
	case *string:
		*field, ok = value.(string)
	case *bool:
		*field, ok = value.(bool)
	case *int:
		*field, ok = value.(int)
	case *time.Duration:
		var seconds int
		seconds, ok = value.(int)
		*field = time.Duration(seconds) * time.Second
	}
	return ok
}

// applyRows writes the fields that the request names into the record, and no others. Null and the empty string stand
// for the default.
func applyRows[T any](rows []row[T], data *framework.FieldData, record, defaults *T) error {
	for _, r := range rows {
		if _, named := data.Raw[r.name]; !named {
			continue
		}
		value := r.value(defaults)
		if isGiven(data, r.name) {
			var err error
			if value, _, err = data.GetOkErr(r.name); err != nil {
				return wrongType(r.name, r.kind)
			}
		}
		if !r.set(record, value) {
			return wrongType(r.name, r.kind)
		}
	}
	return nil
}

// isGiven reports whether the request gives a field a value. Null and the empty string stand for the default.
func isGiven(data *framework.FieldData, field string) bool {
	raw := data.Raw[field]
	return raw != nil && raw != ""
}

// showRows returns the record as a response's data.
func showRows[T any](rows []row[T], record *T) map[string]any {
	data := make(map[string]any, len(rows))
	for _, r := range rows {
		data[r.name] = r.value(record)
	}
	return data
}

// kindWords says what a field type takes.
var kindWords = map[framework.FieldType]string{
	framework.TypeString:         "a string",
	framework.TypeBool:           "true or false",
	framework.TypeInt:            "a whole number",
	framework.TypeDurationSecond: "a whole number of seconds, or a duration such as 30s, 2m or 1h30m",
}

// wrongType refuses a value without repeating it: it may be a secret in the wrong place.
func wrongType(field string, kind framework.FieldType) error {
	words := kindWords[kind]
	if words == "" {
		words = kind.String()
	}
	return fieldError(field, "give "+words, "the value is of the wrong type")
}

// checkText refuses what could not stand in a JWT, a form or a log line: control characters and excessive length. Nor
// does a space at either end get in, which no one sees and Redox takes for a part of the value.
func checkText(field, value string) error { return checkTextOf(field, value, 512) }

// checkClientID is checkText for client IDs: some servers issue JWTs of more than a thousand characters.
func checkClientID(value string) error { return checkTextOf("client_id", value, 4096) }

func checkTextOf(field, value string, most int) error {
	if len(value) > most {
		return fieldError(field, "give a shorter one", "the value is longer than %d bytes", most)
	}
	for _, r := range value {
		if r < ' ' || r > '~' {
			return fieldError(field, "use printable ASCII characters", "the value has a character that is not allowed")
		}
	}
	if strings.Trim(value, " ") != value {
		return fieldError(field, "leave the space out", "the value begins or ends with a space")
	}
	return nil
}

// checkScope allows the characters of RFC 6749 section 3.3.
func checkScope(field, value string) error {
	if strings.ContainsAny(value, "\"\\") {
		return fieldError(field, "give scope names separated by spaces", "the value has a quote or a backslash in it")
	}
	return checkText(field, value)
}

// referencePattern is what framework.GenericNameRegex lets through as a name.
var referencePattern = regexp.MustCompile(`^\w(([\w-.]+)?\w)?$`)

// checkReference refuses what can't be the name of a key or role. Only names that pass are repeated in errors.
func checkReference(field, name string) error {
	if name == "" {
		return nil
	}
	if err := checkName(field, name); err != nil {
		return err
	}
	if !referencePattern.MatchString(name) {
		return fieldError(field, "give the name under which it was created", "the value can't be a name")
	}
	return nil
}

func checkRange(field string, value, least, most time.Duration) error {
	if value < least || value > most {
		return fieldError(field, "give a duration in that range", "the value is not between %ds and %ds",
			int(least.Seconds()), int(most.Seconds()))
	}
	return nil
}

// firstError returns the first of several results that is an error, in the order of the fields.
func firstError(results ...error) error {
	for _, err := range results {
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	noQuery      = false
	queryAllowed = true
)

// normalizeHost writes a URL's host in lower case, without the port that its scheme stands for (RFC 3986 section 6.2) and
// without the dot of the root domain. What is no URL stays as it is, to be refused.
func normalizeHost(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return value
	}
	host := strings.ToLower(u.Host)
	if port := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]; port != "" {
		host = strings.TrimSuffix(host, port)
	}
	host = strings.TrimSuffix(host, ".")
	if host == u.Host || host == "" {
		return value
	}
	return strings.Replace(value, u.Host, host, 1)
}

// checkURL refuses what no token or assertion may be sent to: relative URLs, plain http off this machine, credentials
// in the URL, fragments. The empty string passes: it stands for the default.
func checkURL(field, value string, query bool) error {
	if value == "" {
		return nil
	}
	if err := checkText(field, value); err != nil {
		return err
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Opaque != "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fieldError(field, "give a full https URL", "the value is not an http URL")
	case u.Hostname() == "":
		return fieldError(field, "give a full https URL", "the URL has no host")
	case checkText(field, u.Host) != nil:
		// It was percent-encoded: an error that tells the host would be unreadable, or no UTF-8 and so none at all.
		return fieldError(field, "give the host in ASCII, an international name in its xn-- form",
			"the URL's host has a character that is not allowed")
	case u.User != nil:
		return fieldError(field, "leave user name and password out", "the URL has credentials in it")
	case u.Fragment != "" || strings.Contains(value, "#"):
		return fieldError(field, "leave out what begins with #", "the URL has a fragment")
	case !query && (u.RawQuery != "" || u.ForceQuery):
		return fieldError(field, "leave out what begins with ?", "the URL has a query, and paths are appended to it")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return fieldError(field, "use https; http is accepted for loopback hosts only", "the URL is not https")
	}
	return nil
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
