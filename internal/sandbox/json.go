// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// decodeStrict reads a JSON object into the struct that v points to. Unknown members, members that are there twice
// and anything after the object are errors, so that a typing mistake never goes unnoticed. Names count to the
// letter: encoding/json alone would take jwksUrl for jwksURL.
func decodeStrict(data []byte, v any) error {
	object, duplicates, err := decodeObject(data)
	if err != nil {
		return err
	}
	if len(duplicates) > 0 {
		return fmt.Errorf("the member %q is there twice", duplicates[0])
	}
	known := memberNames(v)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown member %q; known are %s", name, strings.Join(known, ", "))
		}
	}
	return json.Unmarshal(data, v)
}

// memberNames gives the JSON names of the fields of the struct that v points to.
func memberNames(v any) []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeOf(v).Elem()) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// decodeObject reads a JSON object into its members, still encoded, and the names that occur more than once:
// encoding/json would silently take the last of them, RFC 7515 section 4 and RFC 7519 section 4 want none.
func decodeObject(data []byte) (members map[string]json.RawMessage, duplicates []string, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, nil, errors.New("not a JSON object")
	}
	members = map[string]json.RawMessage{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, nil, fmt.Errorf("a member's name is a %T", token)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, nil, err
		}
		if _, seen := members[name]; seen {
			duplicates = append(duplicates, name)
		}
		members[name] = value
	}
	if _, err := decoder.Token(); err != nil { // the closing brace
		return nil, nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("there is something after the JSON object")
	}
	return members, duplicates, nil
}

// writeJSON answers with a status and a JSON body.
func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		// Only values of this package come here; one that can't be encoded is a mistake in it.
		panic(fmt.Sprintf("sandbox: encode an answer: %v", err))
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
