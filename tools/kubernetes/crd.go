// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"
)

// The External Secrets Operator publishes its CRDs with its Go module. It is no entry of go.mod: that requires modules of
// the same repository that are not published. So its checksum is pinned here.
const (
	externalSecrets    = "github.com/external-secrets/external-secrets@v1.3.2"
	externalSecretsSum = "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ="
)

var externalSecretsCRDs = []string{
	"external-secrets.io_externalsecrets.yaml",
	"generators.external-secrets.io_vaultdynamicsecrets.yaml",
}

// download gets a Go module, and gives the folder that holds it.
func download(module, sum string) (string, error) {
	fmt.Fprintln(os.Stderr, "+ go mod download", module)
	output, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var got struct{ Dir, Sum, Error string }
	if decodeErr := json.Unmarshal(output, &got); decodeErr != nil {
		return "", fmt.Errorf("downloading %s failed: %w", module, errors.Join(err, decodeErr))
	}
	switch {
	case got.Error != "":
		return "", fmt.Errorf("downloading %s failed: %s", module, got.Error)
	case got.Sum != sum:
		return "", fmt.Errorf("%s has the checksum %s, not %s", module, got.Sum, sum)
	}
	return got.Dir, nil
}

// crd is what is needed of a CustomResourceDefinition.
type crd struct {
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Served bool
			Schema struct{ OpenAPIV3Schema *spec.Schema }
		}
	}
}

// loadCRDs gives the check of each kind that the files define.
func loadCRDs(folder string, files []string) (map[string]check, error) {
	checks := map[string]check{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return nil, err
		}
		var definition crd
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, version := range definition.Spec.Versions {
			schema := version.Schema.OpenAPIV3Schema
			if !version.Served || schema == nil {
				continue
			}
			refuseUnknown(schema)
			// A CRD says of metadata only that it is an object; checkObject looks at it.
			schema.Properties["metadata"] = *spec.MapProperty(nil)
			kind := definition.Spec.Group + "/" + version.Name + " " + definition.Spec.Names.Kind
			checks[kind] = func(object []byte) error { return validateAgainst(schema, object) }
		}
	}
	return checks, nil
}

// refuseUnknown makes a schema refuse fields that it doesn't name, which Kubernetes drops or refuses, as it is asked to.
func refuseUnknown(schema *spec.Schema) {
	for name, property := range schema.Properties {
		refuseUnknown(&property)
		schema.Properties[name] = property
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		refuseUnknown(schema.Items.Schema)
	}
	keep, _ := schema.Extensions.GetBool("x-kubernetes-preserve-unknown-fields")
	switch {
	case schema.AdditionalProperties != nil:
		if schema.AdditionalProperties.Schema != nil {
			refuseUnknown(schema.AdditionalProperties.Schema)
		}
	case len(schema.Properties) > 0 && !keep:
		schema.AdditionalProperties = &spec.SchemaOrBool{Allows: false}
	}
}

func validateAgainst(schema *spec.Schema, object []byte) error {
	var value any
	if err := json.Unmarshal(object, &value); err != nil {
		return err
	}
	result := validate.NewSchemaValidator(schema, nil, "", strfmt.Default).Validate(value)
	return errors.Join(result.Errors...)
}
