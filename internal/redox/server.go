// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"net"
	"net/url"
	"strings"
)

// isRedox reports whether a host is Redox's, or this machine, where the local Redox is.
func isRedox(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip := net.ParseIP(host)
	return host == "redoxengine.com" || strings.HasSuffix(host, ".redoxengine.com") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// named makes an error's words those of the server that it is about: they are written for Redox.
func (e *Error) named(endpoint *url.URL) *Error {
	if isRedox(endpoint.Hostname()) {
		return e
	}
	host := endpoint.Host
	other := strings.NewReplacer(
		rightTokenURL, "check base_url and token_url against what "+host+" documents",
		"in the Redox dashboard", "where clients are registered at "+host,
		"the Redox dashboard", "the client's registration at "+host,
		"in the dashboard", "there",
		"OAuth API key", "client",
		"API key", "client",
		"Redox", host,
	)
	e.Cause, e.Action, e.server = other.Replace(e.Cause), other.Replace(e.Action), host
	return e
}
