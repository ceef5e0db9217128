// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"

	"vault-plugin-secrets-redox/internal/leakcheck"
)

// secrets knows every private key of the run, and what must not hold them beside Vault's log.
type secrets struct {
	scanner *leakcheck.Scanner
	mu      sync.Mutex
	errors  bytes.Buffer // answers that were errors
}

func newSecrets() *secrets { return &secrets{scanner: leakcheck.New()} }

// saidMost bounds what is kept of them.
const saidMost = 8 << 20

func (s *secrets) said(answer []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.errors.Len() < saidMost {
		s.errors.Write(answer)
	}
}

// learnKey reads a key's private numbers from Vault's storage, as long as they are there: rotations destroy them.
func (s *soak) learnKey(ctx context.Context, key string) error {
	raw, err := s.vault.Must(ctx, http.MethodGet, "sys/raw/logical/"+s.vault.uuid+"/keys/"+key, nil)
	if err != nil {
		return err
	}
	entry, _ := raw.Data["value"].(string)
	learned, err := s.secrets.scanner.AddStored(key, entry)
	if err == nil && learned == 0 {
		err = errors.New("the stored key " + key + " has no private key")
	}
	return err
}

// searchSecrets looks for private keys, tokens and assertions in Vault's log, which has the plugin's, and in all answers
// that were errors. It learns the keys once more: the engine rotates by itself, too.
func (s *soak) searchSecrets(ctx context.Context) (found []string, searched int, err error) {
	for _, key := range rotated {
		if err := s.learnKey(ctx, key); err != nil {
			return nil, 0, err
		}
	}
	log, err := os.Open(s.vault.LogFile())
	if err != nil {
		return nil, 0, err
	}
	defer log.Close()
	inLog, searched, err := scanStream(s.secrets.scanner, log)
	if err != nil {
		return nil, 0, err
	}
	if searched == 0 {
		return nil, 0, errors.New("the server's log is empty: there is nothing to search")
	}
	for _, leak := range inLog {
		found = append(found, "Vault's log holds "+leak)
	}
	for _, leak := range s.secrets.scanner.Scan(s.secrets.errors.Bytes()) {
		found = append(found, "an answer that is an error holds "+leak)
	}
	return found, searched + s.secrets.errors.Len(), nil
}

// scanStream scans piece by piece what may be too large for memory. Each piece begins with the end of the one before.
func scanStream(scanner *leakcheck.Scanner, from io.Reader) (leaks []string, size int, err error) {
	const overlap, piece = 64 << 10, 8 << 20
	buffer := make([]byte, overlap+piece)
	kept := 0
	known := map[string]bool{}
	for {
		n, err := io.ReadFull(from, buffer[kept:])
		size += n
		if n > 0 {
			for _, leak := range scanner.Scan(buffer[:kept+n]) {
				if !known[leak] {
					known[leak] = true
					leaks = append(leaks, leak)
				}
			}
		}
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return leaks, size, nil
		case err != nil:
			return nil, 0, err
		}
		kept = copy(buffer, buffer[len(buffer)-overlap:])
	}
}
