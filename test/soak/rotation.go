// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// rotationPatience is how long a rotation may take, whatever goes wrong meanwhile.
const rotationPatience = 3 * time.Minute

// rotate rotates the keys in turn, as an operator does.
func (s *soak) rotate(ctx context.Context) {
	random := s.random(3)
	for n := 0; pause(ctx, between(random, 3*time.Second, 12*time.Second)); n++ {
		key := rotated[n%len(rotated)]
		replace := random.IntN(2) == 0
		// Tokens end meanwhile: mints come that find the new JWK in the dashboard, and in one half of the cases no old one.
		waits := between(random, tokenLifetime/2, tokenLifetime)
		s.dashboard[key].Lock()
		err := s.rotateKey(ctx, key, replace, waits)
		s.dashboard[key].Unlock()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.record.isBroken("the rotation of key %s did not come to its end within %s: %v", key, rotationPatience, err)
		default:
			s.record.didRotate()
		}
	}
}

// rotateKey does one step after the other, each until it succeeds: faults come in between, and the plugin's end.
func (s *soak) rotateKey(ctx context.Context, key string, replace bool, waits time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, rotationPatience)
	defer cancel()
	post := func(verb string) func() error {
		return func() error {
			_, err := s.vault.Must(ctx, http.MethodPost, mount+"keys/"+key+"/"+verb, nil)
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return s.addVersion(ctx, key) },
		func() error { return s.learnKey(ctx, key) },
		func() error { return s.register(ctx, key, replace) },
		func() error { pause(ctx, waits); return nil },
		post("activate"),
		func() error { return s.retire(ctx, key) },
	} {
		for {
			err := step()
			if err == nil {
				break
			}
			if !pause(ctx, time.Second) {
				return err
			}
		}
	}
	return nil
}

// addVersion makes a pending version, unless there is one: a request may have succeeded whose answer was lost.
func (s *soak) addVersion(ctx context.Context, key string) error {
	shown, err := s.readKey(ctx, key)
	if err != nil || shown.PendingKID != "" {
		return err
	}
	if _, err = s.vault.Must(ctx, http.MethodPost, mount+"keys/"+key+"/rotate", nil); err != nil {
		return err
	}
	shown, err = s.readKey(ctx, key)
	if err == nil && shown.PendingKID == "" {
		err = errors.New("it has no pending version")
	}
	return err
}

// retire destroys the versions before, unless that is done, and takes them out of the dashboard.
func (s *soak) retire(ctx context.Context, key string) error {
	shown, err := s.readKey(ctx, key)
	if err != nil {
		return err
	}
	for _, version := range shown.Versions {
		if version.State == "retired" {
			if _, err := s.vault.Must(ctx, http.MethodPost, mount+"keys/"+key+"/retire", nil); err != nil {
				return err
			}
			break
		}
	}
	if clients[key] == nil {
		return nil
	}
	return s.register(ctx, key, false)
}

// change writes configuration and roles, and lets roles come and go. That alone must not make a read fail, so these
// requests are recorded as reads are.
func (s *soak) change(ctx context.Context) {
	random := s.random(4)
	for n := 0; pause(ctx, between(random, 2*time.Second, 8*time.Second)); n++ {
		passing := fmt.Sprintf("roles/passing-%d", n)
		switch random.IntN(3) {
		case 0:
			s.write(ctx, http.MethodPost, "config", s.config(n))
		case 1:
			s.write(ctx, http.MethodPost, "roles/es", map[string]any{"scope": fmt.Sprint("scope-", n)})
		case 2:
			s.write(ctx, http.MethodPost, passing, map[string]any{"client_id": "client-rs", "key": "rs"})
			s.ask(ctx, request{method: http.MethodGet, path: "token/" + passing[len("roles/"):], token: true})
			s.write(ctx, http.MethodDelete, passing, nil)
		}
	}
}

func (s *soak) write(ctx context.Context, method, path string, body any) {
	began := time.Now()
	a, err := s.vault.Do(ctx, method, mount+path, body)
	if ctx.Err() != nil {
		return
	}
	o := outcome{path: method + " " + path, status: a.Status, began: began, ended: time.Now()}
	switch {
	case err != nil:
		o.problem = "no answer from Vault: " + err.Error()
	case a.Status >= http.StatusMultipleChoices:
		o.problem = a.Problem()
		s.secrets.said(a.Body)
	}
	s.record.add(o)
}
