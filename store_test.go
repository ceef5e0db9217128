// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestStoreWritesOneAtATime(t *testing.T) {
	s := newStore(&watchedStorage{inner: &logical.InmemStorage{}})
	err := s.write(t.Context(), func(w *writing) error {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.write(ended, func(*writing) error { t.Error("two wrote at once"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("a waiter whose context has ended got %v", err)
		}
		if err := w.put(t.Context(), configStorageKey, &config{ClientID: "client-1"}); err != nil {
			return err
		}
		c, written, err := s.config(t.Context()) // a reader does not wait for the write
		if err != nil || !written || c.ClientID != "client-1" || c.MaxRetries != 0 {
			t.Errorf("within the write the configuration is read as %+v, %v, %v", c, written, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context(), func(*writing) error { return errors.New("no") }); err == nil {
		t.Error("a write's error is lost")
	}
	if err := s.write(t.Context(), func(*writing) error { return nil }); err != nil {
		t.Errorf("nothing can be written after a write that failed: %v", err)
	}
}

func TestStoreGeneration(t *testing.T) {
	storage := &watchedStorage{inner: &logical.InmemStorage{}}
	s := newStore(storage)
	put := func() error {
		return s.write(t.Context(), func(w *writing) error { return w.put(t.Context(), rolesStoragePrefix+"a", &role{}) })
	}
	for name, change := range map[string]func(){
		"a put": func() { must(0, put()) },
		"a put that fails": func() {
			storage.onEach(func(string, string) error { return errInjected })
			if err := put(); err != errInjected {
				t.Errorf("a failed put: %v", err)
			}
			storage.onEach(nil)
		},
		"a delete": func() {
			must(0, s.write(t.Context(), func(w *writing) error { return w.delete(t.Context(), rolesStoragePrefix+"a") }))
		},
		"another node's change": s.invalidated,
	} {
		before := s.generation()
		change()
		if s.generation() == before {
			t.Errorf("%s leaves the generation as it was", name)
		}
	}
	before := s.generation()
	if _, err := s.role(t.Context(), "a"); err != nil || s.generation() != before {
		t.Errorf("a read changes the generation, or fails: %v", err)
	}
}
