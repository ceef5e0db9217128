// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

func TestAnswer(t *testing.T) {
	remote := func(kind redox.Kind) error { return &redox.Error{Kind: kind, Cause: "the cause", Action: "the action"} }
	user := fieldError("key", "do this", "it is %s", "wrong")
	storage := errors.New("storage is broken")
	for name, c := range map[string]struct {
		err    error
		status int // as Vault takes it from the outermost error; 0: the error goes back as it came
		says   string
	}{
		"user":             {user, http.StatusBadRequest, "key: it is wrong; do this"},
		"user, no field":   {fieldError("", "do this", "wrong"), http.StatusBadRequest, "wrong; do this"},
		"user, wrapped":    {fmt.Errorf("around: %w", user), http.StatusBadRequest, "key: it is wrong; do this"},
		"percent signs":    {fieldError("key", "50%d", "%s", "100%s"), http.StatusBadRequest, "key: 100%s; 50%d"},
		"rejected":         {remote(redox.Rejected), http.StatusBadRequest, "the cause; the action"},
		"unavailable":      {remote(redox.Unavailable), http.StatusBadGateway, "the cause; the action"},
		"timeout":          {remote(redox.Timeout), http.StatusGatewayTimeout, "the cause; the action"},
		"invalid response": {remote(redox.InvalidResponse), http.StatusBadGateway, "the cause; the action"},
		"unknown kind":     {remote(0), http.StatusBadGateway, "the cause; the action"},
		"remote, wrapped": {fmt.Errorf("around: %w", remote(redox.Timeout)), http.StatusGatewayTimeout,
			"the cause; the action"},
		"expired":  {tokencache.ErrExpired, http.StatusBadGateway, "expired by the time it arrived"},
		"deadline": {context.DeadlineExceeded, http.StatusGatewayTimeout, "could not be done in time"},
		"deadline, wrapped": {fmt.Errorf("around: %w", context.DeadlineExceeded), http.StatusGatewayTimeout,
			"could not be done in time"},
		"deadline, of storage over gRPC": {status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
			http.StatusGatewayTimeout, "could not be done in time"},
		"storage":    {storage, 0, ""},
		"read only":  {logical.ErrReadOnly, 0, ""},
		"no path":    {logical.ErrUnsupportedPath, 0, ""},
		"canceled":   {context.Canceled, 0, ""},
		"coded":      {logical.CodedError(http.StatusTeapot, "x"), 0, ""},
		"unusable":   {&unusableEntry{key: "config", problem: "is unreadable"}, 0, ""},
		"closed":     {tokencache.ErrClosed, 0, ""},
		"no failure": {nil, 0, ""},
	} {
		given := &logical.Response{Data: map[string]any{"a": "b"}}
		response, err := answer(given, c.err)
		switch {
		case c.err == nil:
			if response != given || err != nil {
				t.Errorf("%s: a response became %v, %v", name, response, err)
			}
		case c.status == 0:
			if response != nil || err != c.err {
				t.Errorf("%s: the error became %v, %v", name, response, err)
			}
		case c.status == http.StatusBadRequest:
			if err != nil || !response.IsError() || response.Error().Error() != c.says {
				t.Errorf("%s: the error became %v, %v", name, response, err)
			}
		default:
			coded, ok := err.(logical.HTTPCodedError) // unwrapped: Vault looks no deeper
			if response != nil || !ok || coded.Code() != c.status || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: the error became %v, %v", name, response, err)
			}
		}
	}
}
