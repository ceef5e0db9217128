// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// check looks at an object, which is JSON.
type check func(object []byte) error

type checker map[string]check // by apiVersion, space, kind

func newChecker() (checker, error) {
	folder, err := download(externalSecrets, externalSecretsSum)
	if err != nil {
		return nil, err
	}
	c, err := loadCRDs(folder+"/config/crds/bases", externalSecretsCRDs)
	if err != nil {
		return nil, err
	}
	c["v1 ServiceAccount"] = strict(func(*core.ServiceAccount) error { return nil })
	c["apps/v1 Deployment"] = strict(checkDeployment)
	c["monitoring.coreos.com/v1 ServiceMonitor"] = strict(func(*monitoring.ServiceMonitor) error { return nil })
	c["monitoring.coreos.com/v1 PrometheusRule"] = strict(func(*monitoring.PrometheusRule) error { return nil })
	for _, kind := range unchecked {
		c[kind] = func([]byte) error { return nil }
	}
	return c, nil
}

// unchecked are kinds whose definitions can't be had from a registry of Go modules: only their YAML and metadata are looked at.
var unchecked = []string{
	"secrets.hashicorp.com/v1beta1 VaultConnection", "secrets.hashicorp.com/v1beta1 VaultAuth",
	"secrets.hashicorp.com/v1beta1 VaultDynamicSecret", "secrets-store.csi.x-k8s.io/v1 SecretProviderClass",
}

// strict decodes an object into T, which must know each of its fields, and looks at it.
func strict[T any](look func(*T) error) check {
	return func(object []byte) error {
		var value T
		if err := unmarshalStrict(object, &value); err != nil {
			return err
		}
		return look(&value)
	}
}

// unmarshalStrict refuses unknown fields and, as Kubernetes does, those in another case.
func unmarshalStrict(object []byte, into any) error {
	problems, err := strictjson.UnmarshalStrict(object, into)
	return errors.Join(append(problems, err)...)
}

// checkFolder checks all manifests in a folder, and says how many objects they have.
func (c checker) checkFolder(folder fs.FS) (objects int, err error) {
	files, err := fs.Glob(folder, "*.yaml")
	if err != nil {
		return 0, err
	}
	var problems []error
	for _, file := range files {
		text, err := fs.ReadFile(folder, file)
		if err != nil {
			return 0, err
		}
		n, err := c.checkManifest(text)
		objects += n
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file, err))
		}
	}
	if objects == 0 {
		return 0, errors.New("there are no manifests")
	}
	return objects, errors.Join(problems...)
}

var separator = regexp.MustCompile(`(?m)^---\n`)

// checkManifest checks each object of a file.
func (c checker) checkManifest(text []byte) (objects int, err error) {
	var problems []error
	for _, document := range separator.Split(string(text), -1) {
		object, err := yaml.YAMLToJSONStrict([]byte(document))
		if err != nil {
			return objects, err
		}
		if bytes.Equal(object, []byte("null")) {
			continue // only comments
		}
		objects++
		if err := c.checkObject(object); err != nil {
			problems = append(problems, err)
		}
	}
	return objects, errors.Join(problems...)
}

func (c checker) checkObject(object []byte) error {
	var head struct {
		meta.TypeMeta
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := strictjson.UnmarshalCaseSensitivePreserveInts(object, &head); err != nil {
		return err
	}
	kind := head.APIVersion + " " + head.Kind
	look := c[kind]
	if look == nil {
		return fmt.Errorf("%q is no kind that is known here", kind)
	}
	var metadata meta.ObjectMeta
	if err := unmarshalStrict(head.Metadata, &metadata); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if metadata.Name == "" || metadata.Namespace == "" {
		return fmt.Errorf("%s: it has no name, or no namespace", kind)
	}
	if err := look(object); err != nil {
		return fmt.Errorf("%s %s: %w", kind, metadata.Name, err)
	}
	return nil
}

// checkDeployment leaves annotations to the Agent Injector, as Kubernetes does.
func checkDeployment(deployment *apps.Deployment) error {
	pod := deployment.Spec.Template
	for key, value := range deployment.Spec.Selector.MatchLabels {
		if pod.Labels[key] != value {
			return fmt.Errorf("its selector finds no pod of its template: %s", key)
		}
	}
	return nil
}
