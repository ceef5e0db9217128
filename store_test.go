// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
)

// failing is a hook for watchedStorage: an operation fails on the keys with a prefix.
func failing(operation, prefix string) func(string, string) error {
	return func(o, key string) error {
		if o == operation && strings.HasPrefix(key, prefix) {
			return errInjected
		}
		return nil
	}
}

// TestStoreWritesOneAtATime: what the writes share needs no other lock. The race detector looks on.
func TestStoreWritesOneAtATime(t *testing.T) {
	s := newStore(&watchedStorage{inner: &logical.InmemStorage{}})
	const writers, writes = 8, 20
	now, done := 0, 0 // guarded by nothing but the store
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range writes {
				err := s.write(t.Context(), func(w *writing) error {
					if now++; now != 1 {
						t.Errorf("%d write at once", now)
					}
					err := w.put(t.Context(), rolesStoragePrefix+"a", &role{Scope: fmt.Sprint(done)})
					done++
					now--
					return err
				})
				if err != nil {
					t.Error(err)
				}
				if _, err := s.role(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if last := must(s.role(t.Context(), "a")).Scope; done != writers*writes || last != fmt.Sprint(done-1) {
		t.Errorf("%d writes were done, the last one stored is %s", done, last)
	}
}

// TestStoreWaiting: a writer that waits gives up with its context, a reader never waits, and the next writer's turn comes
// however the write before has ended.
func TestStoreWaiting(t *testing.T) {
	for name, outcome := range map[string]error{"a write that succeeds": nil, "a write that fails": errInjected} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(&watchedStorage{inner: &logical.InmemStorage{}})
			finish, first := make(chan struct{}), make(chan error, 1)
			go func() {
				first <- s.write(t.Context(), func(w *writing) error {
					if err := w.put(t.Context(), configStorageKey, &config{ClientID: "client-1"}); err != nil {
						return err
					}
					<-finish
					return outcome
				})
			}()
			synctest.Wait()
			if c, written, err := s.config(t.Context()); err != nil || !written || c.ClientID != "client-1" {
				t.Errorf("during %s the configuration reads %+v, %v, %v", name, c, written, err)
			}
			impatient, giveUp := context.WithCancel(t.Context())
			second, third := make(chan error, 1), make(chan error, 1)
			go func() {
				second <- s.write(impatient, func(*writing) error { t.Error("it gave up, and wrote all the same"); return nil })
			}()
			go func() { third <- s.write(t.Context(), func(*writing) error { return nil }) }()
			synctest.Wait()
			giveUp()
			synctest.Wait()
			if err := <-second; !errors.Is(err, context.Canceled) {
				t.Errorf("a writer that gave up got %v", err)
			}
			if len(third) > 0 {
				t.Errorf("%s was not waited for", name)
			}
			close(finish)
			if err := <-first; err != outcome {
				t.Errorf("%s ended with %v", name, err)
			}
			if err := <-third; err != nil {
				t.Errorf("after %s: %v", name, err)
			}
		})
	}
}

// TestStoreGeneration: it changes when a change is over, so that whatever was read before or during it is out of date.
func TestStoreGeneration(t *testing.T) {
	put := func(w *writing) error { return w.put(t.Context(), rolesStoragePrefix+"a", &role{}) }
	remove := func(w *writing) error { return w.delete(t.Context(), rolesStoragePrefix+"a") }
	for _, test := range []struct {
		name   string
		change func(*writing) error
		fails  error
	}{
		{"a put", put, nil},
		{"a put that fails", put, errInjected},
		{"a delete", remove, nil},
		{"a delete that fails", remove, errInjected},
	} {
		storage := &watchedStorage{inner: &logical.InmemStorage{}}
		s := newStore(storage)
		before := s.generation()
		var during uint64
		storage.onEach(func(string, string) error {
			during = s.generation()
			return test.fails
		})
		if err := s.write(t.Context(), test.change); err != test.fails {
			t.Errorf("%s: %v", test.name, err)
		}
		if after := s.generation(); after == before || after == during {
			t.Errorf("%s: generation %d before, %d during, %d after", test.name, before, during, after)
		}
	}

	s := newStore(&watchedStorage{inner: &logical.InmemStorage{}})
	before := s.generation()
	must(s.role(t.Context(), "a"))
	_, _, err := s.keys(t.Context())
	must(0, err)
	must(0, s.write(t.Context(), func(*writing) error { return nil }))
	if s.generation() != before {
		t.Error("the generation has changed, and nothing else has")
	}
	s.changed("config")
	if s.generation() == before {
		t.Error("another node's change leaves the generation as it was")
	}
}

// TestStoreUnusableEntries: an entry that can't be used is named and nothing of it is quoted, whatever is wrong with it.
func TestStoreUnusableEntries(t *testing.T) {
	reads := map[string]func(*store) error{
		configStorageKey:              func(s *store) error { _, _, err := s.config(t.Context()); return err },
		rolesStoragePrefix + "main":   func(s *store) error { _, err := s.role(t.Context(), "main"); return err },
		keysStoragePrefix + "main":    func(s *store) error { _, err := s.key(t.Context(), "main"); return err },
		clientsStoragePrefix + "main": func(s *store) error { _, err := s.clients(t.Context(), &signingKey{name: "main"}); return err },
		wrappingKeyStorage:            func(s *store) error { _, err := s.wrappingKeys(t.Context()); return err },
	}
	const newer, unreadable = "was written by a newer version", "is unreadable"
	for _, test := range []struct{ entry, problem string }{
		{`{"schema_version":3}`, newer},
		{`{"schema_version":3,"client_id":{},"versions":"` + misplaced + `","standings":1,"private_key":{}}`, newer},
		{`{"schema_version":0}`, unreadable},
		{`{"schema_version":"1"}`, unreadable},
		{`{"client_id":"` + misplaced + `"}`, unreadable},
		{`{"schema_version":1,"client_id":{"` + misplaced + `":1},"versions":"` + misplaced + `","clients":1,"private_key":"AA=="}`, unreadable},
		{`{"schema_version":1`, unreadable},
		{misplaced, unreadable},
		{"", unreadable},
	} {
		for key, read := range reads {
			storage := &watchedStorage{inner: &logical.InmemStorage{}}
			must(0, storage.inner.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(test.entry)}))
			err := read(newStore(storage))
			if unusable := (*unusableEntry)(nil); !errors.As(err, &unusable) || !strings.Contains(err.Error(), `"`+key+`" `+test.problem) {
				t.Errorf("%s with %.60q: %v", key, test.entry, err)
			} else if strings.Contains(err.Error(), misplaced) {
				t.Errorf("%s: the error quotes the entry: %v", key, err)
			}
		}
	}
}

// TestStoreFailingReads: what storage says comes back as it is, and is no unusable entry.
func TestStoreFailingReads(t *testing.T) {
	storage := &watchedStorage{inner: &logical.InmemStorage{}}
	s := newStore(storage)
	storage.onEach(func(string, string) error { return logical.ErrReadOnly })
	_, _, err := s.config(t.Context())
	if err != logical.ErrReadOnly {
		t.Errorf("the error of storage became %v", err)
	}
	if _, _, err := s.keys(t.Context()); err != logical.ErrReadOnly {
		t.Errorf("the error of a list became %v", err)
	}
}
