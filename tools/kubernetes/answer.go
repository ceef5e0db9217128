// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// answer is what Vault's API answers, decoded as its Go client does, which all three programs use: numbers keep their
// form.
type answer struct {
	LeaseDuration int  `json:"lease_duration"`
	Renewable     bool `json:"renewable"`
	Data          map[string]any
}

// checkAnswer applies to an answer the rules by which the programs read it. It repeats no value of the answer.
func checkAnswer(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var a answer
	if err := decoder.Decode(&a); err != nil {
		return errors.New("the answer is no JSON object")
	}
	return errors.Join(checkForVaultSecretsOperator(a), checkForExternalSecrets(a), checkForCSI(a))
}

// checkForVaultSecretsOperator: hashicorp/vault-secrets-operator, controllers/vaultdynamicsecret_controller.go, syncSecret,
// isStaticCreds, vaultStaticCredsMetaDataFromData and getRotationDuration. A last_vault_rotation that is no string makes it panic.
func checkForVaultSecretsOperator(a answer) error {
	if a.Renewable {
		return errors.New("vault secrets operator: the lease is renewable")
	}
	if a.LeaseDuration > 0 {
		return errors.New("vault secrets operator: refreshAfter does not count when there is a lease")
	}
	rotation, isString := a.Data["last_vault_rotation"].(string)
	at, err := time.Parse(time.RFC3339Nano, rotation)
	if !isString || err != nil || at.Unix() <= 0 {
		return errors.New("vault secrets operator: last_vault_rotation is no time as RFC 3339 has it")
	}
	for _, field := range []string{"rotation_period", "ttl"} {
		number, isNumber := a.Data[field].(json.Number)
		seconds, err := number.Int64()
		if !isNumber || err != nil || seconds < 1 {
			return fmt.Errorf("vault secrets operator: %s is no whole number from 1", field)
		}
	}
	return nil
}

// checkForExternalSecrets: external-secrets/external-secrets, generators/v1/vault/vault.go at 02cda322, prepareResponse,
// and GetByteValue. The manifest's template takes access_token.
func checkForExternalSecrets(a answer) error {
	for field, value := range a.Data {
		switch value.(type) {
		case string, json.Number, bool, nil, map[string]any, []any:
		default:
			return fmt.Errorf("external secrets: %s has a type that it can't store", field)
		}
	}
	if token, _ := a.Data["access_token"].(string); token == "" {
		return errors.New("external secrets: there is no access_token")
	}
	return nil
}

// checkForCSI: hashicorp/vault-csi-provider, internal/provider/provider.go, keyFromData. It looks one level deeper when
// there is an object "data", and writes what is no string as JSON, in quotes where it has some.
func checkForCSI(a answer) error {
	if _, deeper := a.Data["data"].(map[string]any); deeper {
		return errors.New("csi provider: it would look for access_token in data")
	}
	if token, _ := a.Data["access_token"].(string); token == "" {
		return errors.New("csi provider: access_token is no string")
	}
	return nil
}
