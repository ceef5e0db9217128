// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command redox-sandbox runs a local Redox, for trials, demonstrations and tests. See package sandbox.
package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

const usage = `Usage: redox-sandbox [flags]

A local Redox: it checks every rule that Redox documents for its OAuth and answers with the documented errors. It
prints one line a request, never a token. It keeps everything in memory and ends with Ctrl-C.

Examples:
  redox-sandbox
  redox-sandbox --client-id my-client --jwk public.jwk.json
  redox-sandbox --tls --ca-out ca.pem --address 127.0.0.1:0 --ready-file url.txt

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "redox-sandbox:", err)
		os.Exit(1)
	}
}

// errUsage says that the flags were wrong, and that the flag package said so already.
var errUsage = errors.New("wrong usage")

// settings are the flags.
type settings struct {
	options   sandbox.Options
	caOut     string
	jwksCA    string
	clientID  string
	jwkFile   string
	apiKeys   []string
	readyFile string
}

// run runs the sandbox until ctx ends.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) error {
	set, err := parse(arguments, stdout, stderr)
	if err != nil {
		return err
	}
	set.options.Log = stdout
	if set.jwksCA != "" {
		if set.options.JWKSRootCAs, err = readPool(set.jwksCA); err != nil {
			return err
		}
	}
	server, err := sandbox.Start(set.options)
	if err != nil {
		return err
	}
	err = serve(ctx, set, server, stdout)
	return errors.Join(err, server.Close())
}

// parse reads the flags. Asked-for help goes to stdout, complaints to stderr.
func parse(arguments []string, stdout, stderr io.Writer) (settings, error) {
	var set settings
	flags := flag.NewFlagSet("redox-sandbox", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the flag package would print all the help for every mistake
	flags.StringVar(&set.options.Address, "address", "127.0.0.1:8765", "loopback `host:port` to listen on; \":0\" takes a free port")
	flags.BoolVar(&set.options.TLS, "tls", false, "serve HTTPS with a certificate of a throw-away CA")
	flags.StringVar(&set.caOut, "ca-out", "", "with --tls: `file` to write the CA's certificate to, as PEM")
	flags.DurationVar(&set.options.TokenLifetime, "token-lifetime", 5*time.Minute, "how long access tokens live")
	flags.StringVar(&set.clientID, "client-id", "", "`ID` of an API key to create at start; goes with --jwk")
	flags.StringVar(&set.jwkFile, "jwk", "", "`file` with the public JWK of that API key")
	flags.Func("api-key", "`file` with an API key to create at start: JSON as for POST /sandbox/apikeys; can be repeated", func(file string) error {
		set.apiKeys = append(set.apiKeys, file)
		return nil
	})
	flags.StringVar(&set.jwksCA, "jwks-ca", "", "PEM `file` with the CAs to trust when JWKS URLs are read, in place of the system's")
	flags.StringVar(&set.readyFile, "ready-file", "", "`file` to write the base URL to once the sandbox listens, for scripts")

	err := flags.Parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return set, err
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case set.caOut != "" && !set.options.TLS:
		err = errors.New("--ca-out needs --tls")
	case (set.clientID == "") != (set.jwkFile == ""):
		err = errors.New("--client-id and --jwk go together")
	case set.options.TokenLifetime <= 0:
		err = errors.New("--token-lifetime must be more than 0s")
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "redox-sandbox: %s\nSee redox-sandbox --help.\n", err)
		return set, errUsage
	}
	return set, nil
}

// serve creates the API keys, tells that the sandbox is ready, and waits for the end.
func serve(ctx context.Context, set settings, server *sandbox.Server, stdout io.Writer) error {
	if err := createAPIKeys(set, server); err != nil {
		return err
	}
	if set.caOut != "" {
		if err := writeFile(set.caOut, server.CAPEM); err != nil {
			return err
		}
	}
	banner(set, server, stdout)
	// Last, for who waits for this file counts on all the rest.
	if set.readyFile != "" {
		if err := writeFile(set.readyFile, server.URL+"\n"); err != nil {
			return err
		}
	}
	<-ctx.Done()
	_, _ = fmt.Fprintln(stdout, "stopped")
	return nil
}

func createAPIKeys(set settings, server *sandbox.Server) error {
	if set.clientID != "" {
		jwk, err := os.ReadFile(set.jwkFile)
		if err != nil {
			return fmt.Errorf("--jwk: %w", err)
		}
		request := sandbox.APIKeyRequest{ID: set.clientID, Name: "from --client-id", JWK: json.RawMessage(jwk)}
		if _, err := server.CreateAPIKeyChecked(request); err != nil {
			return fmt.Errorf("--jwk %s: %w", set.jwkFile, err)
		}
	}
	for _, file := range set.apiKeys {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--api-key: %w", err)
		}
		request, err := sandbox.ParseAPIKeyRequest(data)
		if err != nil {
			return fmt.Errorf("--api-key %s: not an API key's JSON: %w", file, err)
		}
		if _, err := server.CreateAPIKeyChecked(request); err != nil {
			return fmt.Errorf("--api-key %s: %w", file, err)
		}
	}
	return nil
}

// banner prints where everything is, and a command that works as it stands.
func banner(set settings, server *sandbox.Server, stdout io.Writer) {
	trust := ""
	if set.options.TLS {
		trust = "--cacert ca.pem "
		if set.caOut != "" {
			trust = "--cacert " + set.caOut + " "
		}
	}
	_, _ = fmt.Fprintf(stdout, `redox-sandbox listens: a local Redox, nothing here is real

  token URL     %s
  FHIR base     %s
  Platform API  %s
  all the rest  %s/

`, server.TokenURL(), server.FHIRURL("redox-fhir-sandbox", sandbox.Development), server.PlatformURL(), server.URL)
	for _, k := range server.APIKeys() {
		_, _ = fmt.Fprintf(stdout, "  API key       %s (%s)\n", k.ID, k.Environment.Flag)
	}
	if set.options.TLS && set.caOut == "" {
		_, _ = fmt.Fprintf(stdout, "  The CA, for ca.pem:  curl --insecure -o ca.pem %s/sandbox/ca.pem\n", server.URL)
	}
	_, _ = fmt.Fprintf(stdout, "  Try:  curl %s%s/sandbox/apikeys --data '{\"name\": \"trial\", \"jwksURL\": \"http://127.0.0.1:8200/v1/redox/jwks\"}'\n\n", trust, server.URL)
}

// writeFile writes a file so that who reads it sees nothing or all of it.
func writeFile(path, content string) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(content)
	err = errors.Join(err, temporary.Chmod(0o644), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}

func readPool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--jwks-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("--jwks-ca: there is no certificate in %s; give a PEM file", file)
	}
	return pool, nil
}
