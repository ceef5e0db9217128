// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// What is in this file was read in the projects' sources and written down again: their modules could not be downloaded
// where this was written. So it knows the fields that the manifests use, and refuses all others.

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// vaultConnection is of the Vault Secrets Operator: hashicorp/vault-secrets-operator,
// api/v1beta1/vaultconnection_types.go at 08861e7a.
type vaultConnection struct {
	meta.TypeMeta `json:",inline"`
	Metadata      meta.ObjectMeta `json:"metadata"`
	Spec          struct {
		Address         string `json:"address"`
		CACertSecretRef string `json:"caCertSecretRef"`
	} `json:"spec"`
}

func checkVaultConnection(c *vaultConnection) error {
	if !strings.HasPrefix(c.Spec.Address, "https://") {
		return errors.New("spec.address is no https URL")
	}
	return nil
}

// vaultAuth: config/crd/bases/secrets.hashicorp.com_vaultauths.yaml at 5edabbdc. The CRD requires nothing of this, but
// the method kubernetes does.
type vaultAuth struct {
	meta.TypeMeta `json:",inline"`
	Metadata      meta.ObjectMeta `json:"metadata"`
	Spec          struct {
		VaultConnectionRef string `json:"vaultConnectionRef"`
		Method             string `json:"method"`
		Mount              string `json:"mount"`
		Kubernetes         struct {
			Role           string   `json:"role"`
			ServiceAccount string   `json:"serviceAccount"`
			Audiences      []string `json:"audiences"`
		} `json:"kubernetes"`
	} `json:"spec"`
}

func checkVaultAuth(a *vaultAuth) error {
	if a.Spec.Method != "kubernetes" || a.Spec.Mount == "" || a.Spec.Kubernetes.Role == "" || a.Spec.Kubernetes.ServiceAccount == "" {
		return errors.New("spec is to have the method kubernetes, a mount, a role and a serviceAccount")
	}
	return nil
}

// vaultDynamicSecret: config/crd/bases/secrets.hashicorp.com_vaultdynamicsecrets.yaml at 4505b074.
type vaultDynamicSecret struct {
	meta.TypeMeta `json:",inline"`
	Metadata      meta.ObjectMeta `json:"metadata"`
	Spec          struct {
		VaultAuthRef     string `json:"vaultAuthRef"`
		Mount            string `json:"mount"`
		Path             string `json:"path"`
		AllowStaticCreds bool   `json:"allowStaticCreds"`
		RefreshAfter     string `json:"refreshAfter"`
		Destination      struct {
			Name           string `json:"name"`
			Create         bool   `json:"create"`
			Transformation struct {
				ExcludeRaw bool     `json:"excludeRaw"`
				Includes   []string `json:"includes"`
				Templates  map[string]struct {
					Text string `json:"text"`
				} `json:"templates"`
			} `json:"transformation"`
		} `json:"destination"`
	} `json:"spec"`
}

// operatorDuration is the CRD's pattern.
var operatorDuration = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(s|m|h))$`)

func checkVaultDynamicSecret(s *vaultDynamicSecret) error {
	spec := s.Spec
	switch path := spec.Mount + "/" + spec.Path; {
	case path != tokenPath:
		return fmt.Errorf("it reads %s", path)
	case spec.AllowStaticCreds == (spec.RefreshAfter != ""):
		return errors.New("it is to have either allowStaticCreds or refreshAfter, else it reads only once")
	case spec.RefreshAfter != "" && !operatorDuration.MatchString(spec.RefreshAfter):
		return errors.New("spec.refreshAfter is no duration")
	case spec.Destination.Name == "":
		return errors.New("spec.destination.name is required")
	}
	transformation := spec.Destination.Transformation
	for _, pattern := range transformation.Includes {
		if _, err := regexp.Compile(pattern); err != nil {
			return err
		}
	}
	if !spec.AllowStaticCreds {
		return nil
	}
	for _, template := range transformation.Templates {
		if strings.Contains(template.Text, `.Secrets "ttl"`) {
			return nil
		}
	}
	return errors.New("no template holds ttl: a token that is read a second time would be kept too long")
}

// secretProviderClass is of the Secrets Store CSI driver: kubernetes-sigs/secrets-store-csi-driver,
// config/crd/bases/secrets-store.csi.x-k8s.io_secretproviderclasses.yaml at 3fa81053 (there as v1alpha1).
type secretProviderClass struct {
	meta.TypeMeta `json:",inline"`
	Metadata      meta.ObjectMeta `json:"metadata"`
	Spec          struct {
		Provider   string            `json:"provider"`
		Parameters map[string]string `json:"parameters"`
	} `json:"spec"`
}

// csiObject is an entry of the parameter objects: hashicorp/vault-csi-provider, internal/config/config.go.
type csiObject struct {
	ObjectName     string `json:"objectName"`
	SecretPath     string `json:"secretPath"`
	SecretKey      string `json:"secretKey"`
	FilePermission int    `json:"filePermission"`
}

func checkSecretProviderClass(class *secretProviderClass) error {
	if class.Spec.Provider != "vault" {
		return errors.New("spec.provider is not vault")
	}
	for parameter := range class.Spec.Parameters {
		switch parameter {
		case "roleName", "vaultAddress", "vaultCACertPath", "vaultAuthMountPath", "audience", "objects":
		default:
			return fmt.Errorf("the parameter %s is not known here", parameter)
		}
	}
	if class.Spec.Parameters["roleName"] == "" {
		return errors.New("the parameter roleName is required")
	}
	var objects []csiObject
	text, err := yaml.YAMLToJSONStrict([]byte(class.Spec.Parameters["objects"]))
	if err != nil {
		return err
	}
	if err := unmarshalStrict(text, &objects); err != nil {
		return err
	}
	for _, object := range objects {
		if object.ObjectName == "" || object.SecretPath != tokenPath || object.SecretKey != "access_token" {
			return fmt.Errorf("it puts %s of %s into the file %q", object.SecretKey, object.SecretPath, object.ObjectName)
		}
	}
	if len(objects) == 0 {
		return errors.New("the parameter objects names nothing")
	}
	return nil
}

// injectorPrefix begins the annotations of the Agent Injector: hashicorp/vault-k8s, agent-inject/agent/annotations.go
// at 00f91529; agent-inject-perms is of a later version of it.
const injectorPrefix = "vault.hashicorp.com/"

func checkInjector(annotations map[string]string, pod core.PodSpec) error {
	for name := range annotations {
		short, ours := strings.CutPrefix(name, injectorPrefix)
		switch {
		case !ours:
		case short == "agent-inject", short == "role", short == "auth-path", short == "agent-run-as-same-user":
		case short == "agent-inject-secret-redox-token", short == "agent-inject-template-redox-token", short == "agent-inject-perms-redox-token":
		default:
			return fmt.Errorf("the annotation %s is not known here", name)
		}
	}
	if path := annotations[injectorPrefix+"agent-inject-secret-redox-token"]; path != tokenPath {
		return fmt.Errorf("agent-inject-secret names %q", path)
	}
	if template := annotations[injectorPrefix+"agent-inject-template-redox-token"]; !strings.Contains(template, `secret "`+tokenPath+`"`) {
		return errors.New("agent-inject-template does not read the token")
	}
	if annotations[injectorPrefix+"role"] == "" {
		return errors.New("the annotation role is required")
	}
	security := pod.Containers[0].SecurityContext
	if security == nil || security.RunAsUser == nil {
		return errors.New("agent-run-as-same-user needs runAsUser at the first container")
	}
	return nil
}
