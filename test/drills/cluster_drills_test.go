// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// awaitVoters waits until all nodes of a cluster have a vote: before, it does not survive the loss of one.
func awaitVoters(nodes []*server) error {
	return await("all nodes to have a vote", func() bool {
		a, err := nodes[0].Do(context.Background(), "GET", "sys/storage/raft/configuration", nil)
		return err == nil && strings.Count(string(a.Body), `"voter":true`) == len(nodes)
	})
}

// leaderOf waits until one of the nodes is the active one.
func leaderOf(nodes ...*server) (leader *server, err error) {
	err = await("a leader", func() bool {
		for _, node := range nodes {
			if node.Active() {
				leader = node
				return true
			}
		}
		return false
	})
	return leader, err
}

// leaderFault is what happens to a leader, and how it becomes a healthy node again.
type leaderFault struct {
	what string
	hit  func(*server) error
	mend func(*server) error
}

var (
	leaderKilled = leaderFault{"its process and the plugin's are killed (kill -9) and started again 8s later",
		func(v *server) error { v.Kill(); return nil },
		func(v *server) error {
			if err := v.Restart(context.Background()); err != nil {
				return err
			}
			return v.unseal()
		}}
	leaderStepsDown = leaderFault{"it steps down",
		func(v *server) error {
			_, err := v.must("PUT", "sys/step-down", nil)
			return err
		},
		func(*server) error { return nil }}
	leaderPaused = leaderFault{"its process and the plugin's are paused (SIGSTOP), as when the network is cut, and go on 8s later",
		func(v *server) error { v.Signal(syscall.SIGSTOP); return nil },
		func(v *server) error { v.Signal(syscall.SIGCONT); return nil }}
)

// mendOnce makes the leader a healthy node again, at the latest when the drill is over: the next one needs it.
func (f leaderFault) mendOnce(d *report, leader *server) func() error {
	mend := sync.OnceValue(func() error { return f.mend(leader) })
	d.later(func() { _ = mend() })
	return mend
}

const faultLength = 8 * time.Second

// clusterMount mounts the engine on the leader, and waits until every node can answer for it.
func clusterMount(d *report, lifetime time.Duration) (m *mount, leader *server, others []*server) {
	d.must(awaitVoters(d.servers))
	leader, err := leaderOf(d.servers...)
	d.must(err)
	for _, node := range d.servers {
		if node != leader {
			others = append(others, node)
		}
	}
	m = newMount(d, leader, mountOptions{lifetime: lifetime})
	return m, leader, others
}

// duringReads hits the leader while tokens are read.
func (f leaderFault) duringReads(d *report) {
	m, leader, others := clusterMount(d, 300*time.Second)
	r := read(d, m, d.servers...)
	d.do("3 nodes, readers ask the next one when one gives no token; of the leader: %s", f.what)
	began := time.Now()
	mend := f.mendOnce(d, leader)
	d.must(f.hit(leader))
	next, err := leaderOf(others...)
	d.must(err)
	elected := time.Since(began)
	took, err := r.awaitToken(began.Add(elected))
	d.must(err)
	time.Sleep(time.Until(began.Add(faultLength)))
	d.must(mend())
	m.vault = next
	time.Sleep(3 * time.Second)
	d.must(awaitAnswers(m, d.servers))
	all := r.sinceStart()
	d.saw("%s", all)
	requests := len(m.redox.since(began))
	d.atRedox("%d token requests by the new leader", requests)
	d.check(next != leader, "another node led after %s", short(elected))
	d.check(took <= 2*slack, "tokens came again %s after that", short(took))
	d.check(requests == 1, "Redox got %d token requests", requests)
	d.check(all.without == 0, "an application that keeps its token was without a valid one for %s", short(all.without))
	d.check(all.refused == 0, "%d tokens were handed out that Redox did not take", all.refused)
}

// awaitAnswers waits until every node gives a token, itself or through the leader.
func awaitAnswers(m *mount, nodes []*server) error {
	return await("every node to answer", func() bool {
		for _, node := range nodes {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			a, err := node.Do(ctx, "GET", m.token(0), nil)
			cancel()
			if err != nil || a.Status != http.StatusOK {
				return false
			}
		}
		return true
	})
}

// duringRotation hits the leader while Redox is asked for the proof of a new version.
func (f leaderFault) duringRotation(d *report) {
	m, leader, others := clusterMount(d, 60*time.Second)
	r := read(d, m, d.servers...)
	d.do("3 nodes; a rotation, whose proof Redox is asked for by activate; meanwhile, of the leader: %s; then activate again",
		f.what)
	pending := d.must2(leader.must("POST", m.path+"/keys/main/rotate", nil)).Data
	set := fmt.Sprintf(`{"keys":[%s,%s]}`, m.jwk, pending["pending_public_jwk"])
	d.must(m.redox.SetJWKSet(role(0), json.RawMessage(set)))
	began := time.Now()
	arrived, release := m.redox.HoldTokenRequests()
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	interrupted := make(chan string, 1)
	go func() {
		a, err := leader.Do(ctx, "POST", m.path+"/keys/main/activate", nil)
		switch {
		case err != nil:
			interrupted <- "no answer"
		default:
			interrupted <- fmt.Sprint(a.Status)
		}
	}()
	<-arrived
	kid := d.must2(leader.must("GET", m.path+"/keys/main", nil)).Data["kid"]
	d.check(kid != pending["pending_kid"], "the new version had not taken over before Redox answered")
	mend := f.mendOnce(d, leader)
	hit := make(chan error, 1)
	go func() { hit <- f.hit(leader) }() // a leader that steps down waits for its requests
	time.Sleep(time.Second)
	release()
	d.must(<-hit)
	next, err := leaderOf(others...)
	d.must(err)
	m.vault = next
	d.must(await("the rotation to go on", func() bool {
		a, err := next.Do(ctx, "GET", m.path+"/keys/main", nil)
		if err != nil || a.Status != http.StatusOK {
			return false
		}
		if a.Data["kid"] == pending["pending_kid"] {
			return true
		}
		a, err = next.Do(ctx, "POST", m.path+"/keys/main/activate", nil)
		return err == nil && a.Status == http.StatusOK
	}))
	d.must(await("a token of the new version", func() bool { // one that was minted just before counts as fresh for 2 s
		a, err := next.Do(ctx, "POST", m.token(0), nil)
		return err == nil && a.Data["kid"] == pending["pending_kid"]
	}))
	time.Sleep(time.Until(began.Add(faultLength)))
	d.must(mend())
	d.must(awaitAnswers(m, d.servers))
	mended := time.Now()
	time.Sleep(3 * time.Second)
	all, after := r.sinceStart(), r.between(mended, time.Now())
	d.saw("%s", all)
	d.saw("the interrupted activate: %s", <-interrupted)
	d.atRedox("%d token requests", len(m.redox.since(began)))
	states := map[string]int{}
	versions, _ := d.must2(next.must("GET", m.path+"/keys/main/versions", nil)).Data["versions"].(map[string]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		states[fmt.Sprint(version["state"])]++
	}
	d.check(states["active"] == 1 && states["retired"] == 1 && len(versions) == 2, "the key has %d active and %d retired versions",
		states["active"], states["retired"])
	d.check(len(after.kids) == 1 && after.kids[fmt.Sprint(pending["pending_kid"])], "in the end every token is of the new version")
	d.check(after.failed() == 0, "%d readers got an error after the node was back", after.failed())
	d.check(all.without == 0, "an application that keeps its token was without a valid one for %s", short(all.without))
	d.check(all.refused == 0, "%d tokens were handed out that Redox did not take", all.refused)
}

// restored is Vault turned back to a snapshot from before a rotation, at whose end Redox knows only the new key.
func restored(d *report) {
	m, leader, _ := clusterMount(d, 300*time.Second)
	r := read(d, m, d.servers...)
	// keys/main tells of it before the engine's worker has stored it.
	uuid := d.must2(leader.must("GET", "sys/mounts/"+m.path, nil)).Data["uuid"]
	d.must(await("the proof to be stored", func() bool {
		a, err := leader.Do(context.Background(), "GET", fmt.Sprintf("sys/raw/logical/%s/clients/main", uuid), nil)
		return err == nil && strings.Contains(fmt.Sprint(a.Data["value"]), `"version":1,"taken":true`)
	}))
	snapshot := d.must2(leader.must("GET", "sys/storage/raft/snapshot", nil))
	pending := d.must2(leader.must("POST", m.path+"/keys/main/rotate", nil)).Data
	d.must(m.redox.SetJWK(role(0), json.RawMessage(fmt.Sprint(pending["pending_public_jwk"]))))
	d.must2(leader.must("POST", m.path+"/keys/main/activate", nil))
	d.must2(leader.must("POST", m.token(0), nil))
	began := time.Now()
	d.must2(leader.must("POST", "sys/storage/raft/snapshot", snapshot.Body))
	restored := time.Now()
	var check map[string]any
	checks := 0
	d.must(await("the state of the snapshot", func() bool {
		checks++
		a, err := leader.Do(context.Background(), "POST", m.path+"/check/"+role(0), nil)
		if err != nil || a.Status != http.StatusOK {
			return false
		}
		check = a.Data
		return check["ok"] == false
	}))
	time.Sleep(10 * time.Second)
	key := d.must2(leader.must("GET", m.path+"/keys/main", nil)).Data
	during := r.between(restored.Add(5*time.Second), time.Now())
	d.do("a snapshot, a rotation that replaces the JWK at Redox, the snapshot is restored; then what backup.md says: rotate, " +
		"register the new JWK at Redox, activate, check")
	requests, took := len(m.redox.since(began)), time.Since(began)
	d.atRedox("%d token requests in %s before that", requests, short(took))

	fresh := d.must2(leader.must("POST", m.path+"/keys/main/rotate", nil)).Data
	d.must(m.redox.SetJWK(role(0), json.RawMessage(fmt.Sprint(fresh["pending_public_jwk"]))))
	d.must2(leader.must("POST", m.path+"/keys/main/activate", nil))
	back := time.Now()
	again := m.check(d)
	without, err := r.awaitToken(back)
	d.must(err)
	d.saw("%s", r.sinceStart())
	said := fmt.Sprint(check["error_description"])
	d.check(strings.Contains(said, "Public key not found"), "the check says: %s", said)
	d.check(during.failed() > 0 && during.only(http.StatusBadRequest) && during.ok == 0, "readers got %s", during.counts())
	d.check(strings.Contains(during.mostly(), "Public key not found"), "they were told that Redox does not know the key")
	d.check(strings.Contains(fmt.Sprint(key["next_step"]), "restored"), "next_step of the key says: %v", key["next_step"])
	allowed := checks + mostTries(took)
	d.check(requests <= allowed, "%d token requests while Redox rejected, at most %d are allowed", requests, allowed)
	d.check(again["ok"] == true && without <= slack, "tokens came again %s after activate", short(without))
}
