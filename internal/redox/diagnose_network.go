// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// proxyRefusal is a proxy's answer to CONNECT other than 200.
type proxyRefusal struct{ status int }

func (e *proxyRefusal) Error() string { return fmt.Sprintf("proxy answered CONNECT with %d", e.status) }

var proxyCredentials = diagnosis{
	"the HTTP proxy asks for credentials",
	"give them in HTTPS_PROXY in the environment of the Vault server, or name Redox's host in NO_PROXY",
}

// connectionFailure makes the error for a request that got no whole answer.
// The texts of err are never used: they may quote the URL or what the other
// side sent.
func (c *Client) connectionFailure(ctx, attemptCtx context.Context, endpoint *url.URL, timeout time.Duration, err error) error {
	if ctx.Err() != nil {
		return ended(ctx, endpoint)
	}
	if attemptCtx.Err() != nil {
		return noAnswer(endpoint, fmt.Sprintf("within request_timeout (%s)", timeout))
	}
	if e := proxyFailure(err); e != nil {
		return e.named(endpoint)
	}
	if e := c.tlsFailure(endpoint.Host, err); e != nil {
		return e.named(endpoint)
	}
	return networkFailure(endpoint.Host, err).named(endpoint)
}

// noAnswer is the Error for a time that is over.
func noAnswer(endpoint *url.URL, when string) *Error {
	return &Error{
		Kind:      Timeout,
		Cause:     fmt.Sprintf("%s did not answer %s", endpoint.Host, when),
		Action:    "check that the Vault server can reach it (base_url, firewall, HTTPS_PROXY); if it is only slow, raise request_timeout",
		retryable: true,
	}
}

// proxyFailure gives the Error for a proxy that can't be reached or refuses,
// nil for anything else.
func proxyFailure(err error) *Error {
	const action = "check HTTPS_PROXY and NO_PROXY in the environment of the Vault server, and that the proxy lets it through to Redox"
	var refusal *proxyRefusal
	if errors.As(err, &refusal) {
		if refusal.status == http.StatusProxyAuthRequired {
			return &Error{Kind: Unavailable, Cause: proxyCredentials.cause, Action: proxyCredentials.action}
		}
		return &Error{
			Kind:      Unavailable,
			Cause:     fmt.Sprintf("the HTTP proxy does not connect to Redox (it answered %d)", refusal.status),
			Action:    action,
			retryable: retryableStatus(refusal.status),
		}
	}
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks")) {
		return &Error{Kind: Unavailable, Cause: "the proxy between Vault and Redox cannot be reached", Action: action, retryable: true}
	}
	return nil
}

// tlsFailure gives the Error for a connection that TLS refuses, nil for
// anything else. None is tried again: a certificate does not change within a
// second. What a setting here can cure is Rejected.
func (c *Client) tlsFailure(host string, err error) *Error {
	tlsError := func(kind Kind, cause, action string) *Error {
		return &Error{Kind: kind, Cause: cause, Action: action}
	}
	var (
		unknownAuthority x509.UnknownAuthorityError
		wrongHost        x509.HostnameError
		invalid          x509.CertificateInvalidError
		verification     *tls.CertificateVerificationError
		record           tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknownAuthority) && c.ownTrust:
		return tlsError(Rejected,
			fmt.Sprintf("the certificate of %s is not issued by an authority in ca_pem", host),
			"put the certificate of its authority into ca_pem (ca_pem is the only trust once it is set), or remove ca_pem to trust the system's authorities")
	case errors.As(err, &unknownAuthority):
		return tlsError(Rejected,
			fmt.Sprintf("the certificate of %s is not issued by an authority that this system trusts", host),
			"if a proxy inspects TLS here, put its authority's certificate into ca_pem; else check base_url and token_url, and the system's CA certificates")
	case errors.As(err, &wrongHost):
		return tlsError(Rejected,
			fmt.Sprintf("the certificate of %s is for another host name", host),
			"check the host in base_url and token_url, and any proxy between Vault and Redox")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return tlsError(Unavailable,
			fmt.Sprintf("the certificate of %s has expired or is not valid yet", host),
			"check the clock of the Vault server; if it is right, the certificate must be renewed where it is served: Redox, a proxy, or the CA in ca_pem")
	case errors.As(err, &verification):
		return tlsError(Unavailable,
			fmt.Sprintf("the certificate of %s could not be verified", host),
			"check ca_pem, base_url and token_url, and any proxy between Vault and Redox that inspects TLS")
	case errors.As(err, &record) && strings.HasPrefix(string(record.RecordHeader[:]), "HTTP"):
		return tlsError(Rejected,
			fmt.Sprintf("%s answered in plain HTTP to an https URL", host),
			"check scheme and port in base_url and token_url")
	case errors.As(err, &record):
		return tlsError(Rejected,
			fmt.Sprintf("%s does not speak TLS", host),
			"check scheme and port in base_url and token_url")
	}
	// crypto/tls has no types for the alerts of the other side.
	text := err.Error()
	switch {
	case strings.Contains(text, "tls: ") && strings.Contains(text, "protocol version"):
		return tlsError(Unavailable,
			fmt.Sprintf("%s offers no TLS version from 1.2 on", host),
			"check base_url and token_url, and any proxy between Vault and Redox: TLS 1.2 is the least that is accepted")
	case strings.Contains(text, "tls: "):
		return tlsError(Unavailable,
			fmt.Sprintf("%s broke off the TLS handshake", host),
			"check base_url and token_url, and any proxy between Vault and Redox that inspects TLS or asks for a client certificate")
	}
	return nil
}

// networkFailure makes the Error for everything below TLS. Such failures may
// pass.
func networkFailure(host string, err error) *Error {
	e := &Error{
		Kind:      Unavailable,
		Cause:     fmt.Sprintf("the connection to %s failed", host),
		Action:    "check that the Vault server can reach it (base_url, DNS, firewall, HTTPS_PROXY)",
		retryable: true,
	}
	var (
		dns      *net.DNSError
		timedOut net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		e.Cause = fmt.Sprintf("there is no address for %s in DNS", host)
		e.Action = "check the host in base_url and token_url, and the DNS of the Vault server"
	case errors.As(err, &dns):
		e.Cause = fmt.Sprintf("DNS gave no answer for %s", host)
		e.Action = "check the DNS of the Vault server"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Cause = fmt.Sprintf("%s refused the connection", host)
		e.Action = "check host and port in base_url and token_url, and the firewall"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		e.Cause = fmt.Sprintf("there is no route to %s", host)
		e.Action = "check the network of the Vault server, and whether it needs HTTPS_PROXY"
	case errors.As(err, &timedOut) && timedOut.Timeout():
		e.Kind = Timeout
		e.Cause = fmt.Sprintf("the connection to %s was not made in time", host)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Cause = fmt.Sprintf("%s closed the connection before its answer was complete", host)
		e.Action = "try again; if it stays, check the firewall and any proxy between Vault and Redox"
	}
	return e
}
