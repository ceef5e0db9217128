// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// userError is a fault of the request or of what is configured here, not of the engine or of Redox. It names the
// field (empty when the fault is no field's), what is wrong and what to do next. It becomes a 400.
type userError struct{ field, problem, wayOut string }

func (e *userError) Error() string {
	text := e.problem + "; " + e.wayOut
	if e.field != "" {
		text = e.field + ": " + text
	}
	return text
}

// fieldError is a userError whose problem is formatted. Values from the request belong into it only once they are
// known to be harmless: somebody may have pasted a private key into the wrong field.
func fieldError(field, wayOut, problem string, arguments ...any) error {
	return &userError{field: field, problem: fmt.Sprintf(problem, arguments...), wayOut: wayOut}
}

// statusError is a failure with the HTTP status that Vault is to answer with.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// someOf lists names for an error, not all of thousands.
func someOf(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// answer turns an error into what Vault should say: a 400 for what the user can mend, 502 or 504 for Redox's and the
// network's faults. A CodedError is given unwrapped, since Vault looks at the outermost error only; and 503 is never
// used, since clients take it for a sealed Vault. Storage errors and Vault's own go back as they came.
func answer(response *logical.Response, err error) (*logical.Response, error) {
	var user *userError
	var remote *redox.Error
	var withStatus *statusError
	switch {
	case err == nil:
		return response, nil
	case errors.As(err, &withStatus):
		return nil, logical.CodedError(withStatus.status, withStatus.text)
	case errors.As(err, &user):
		return logical.ErrorResponse("%s", user), nil
	case errors.As(err, &remote):
		switch remote.Kind {
		case redox.Rejected:
			return logical.ErrorResponse("%s", remote), nil
		case redox.Timeout:
			return nil, logical.CodedError(http.StatusGatewayTimeout, remote.Error())
		default:
			return nil, logical.CodedError(http.StatusBadGateway, remote.Error())
		}
	case errors.Is(err, tokencache.ErrExpired):
		return nil, logical.CodedError(http.StatusBadGateway, "Redox's token had expired by the time it arrived; "+
			"look at the latency and clock_offset that the check endpoint shows")
	// A storage read that took too long comes back over gRPC, as a status.
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return nil, logical.CodedError(http.StatusGatewayTimeout, "the request could not be done in time; "+
			"if it was for a token, write to the check endpoint to see what Redox answers, else repeat it")
	default:
		return nil, err
	}
}
