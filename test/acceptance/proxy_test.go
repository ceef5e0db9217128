// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// listening is a Vault Proxy that serves programs of its machine.
type listening struct {
	*exampleFolder
	address string
}

// startListening runs the example in which Proxy serves programs.
func startListening(e *engine, role string, leased bool) *listening {
	e.t.Helper()
	port, err := testvault.FreePort()
	if err != nil {
		e.t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	l := &listening{newExampleFolder(e, "proxy", role, leased, "127.0.0.1:8100", address), "http://" + address}
	l.start("proxy", "proxy.hcl")
	l.await(httpClient)
	return l
}

// await waits until it has logged in. Before, it passes requests on without a Vault token, and Vault refuses them.
func (l *listening) await(client *http.Client) {
	l.t.Helper()
	await(l.t, "Proxy to log in", func() bool {
		a, err := get(client, l.address, "none", "auth/token/lookup-self")
		return err == nil && a.status == http.StatusOK
	})
}

// read gives the role's access token, as a program gets it.
func (l *listening) read() string {
	l.t.Helper()
	a, err := get(httpClient, l.address, "none", l.at("token/"+l.role))
	if err != nil || a.accessToken == "" {
		l.t.Fatalf("%s: a read gave no token: %v, %d, %s", l.role, err, a.status, a.errors)
	}
	return a.accessToken
}

// answer is what a program sees of an answer.
type answer struct {
	status      int
	errors      string
	cache       string // the header with which Proxy says whether it had it
	secret      secret
	accessToken string
}

// get reads a path as a program does, from Vault or Proxy. The Vault token "none" sends none.
func get(client *http.Client, address, vaultToken, path string) (answer, error) {
	request, err := http.NewRequest(http.MethodGet, address+"/v1/"+path, nil)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("X-Vault-Request", "true")
	if vaultToken != "none" {
		request.Header.Set("X-Vault-Token", vaultToken)
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: response.StatusCode, cache: response.Header.Get("X-Cache")}
	if response.StatusCode != http.StatusOK {
		a.errors = string(text)
		return a, nil
	}
	if err := json.Unmarshal(text, &a.secret); err != nil {
		return answer{}, err
	}
	a.accessToken, _ = a.secret.Data["access_token"].(string)
	return a, nil
}

// program reads a role's token again and again, until it has seen some renewals.
type program struct {
	*engine
	address, vaultToken, path string
	cache                     string // what the header X-Cache has to be
	leased                    bool
	keeps                     bool // the token for as long as the answer allows, instead of asking for it each time

	reads int
	seen  map[string]bool
}

// run fails the test, but doesn't end it, when the program holds a token that Redox does not take.
func (p *program) run(lifetime time.Duration, renewals int) {
	deadline := time.After(startTimeout + time.Duration(renewals+1)*lifetime)
	p.seen = map[string]bool{}
	for len(p.seen) <= renewals {
		a, err := get(httpClient, p.address, p.vaultToken, p.path)
		if err != nil || a.status != http.StatusOK || a.accessToken == "" {
			p.t.Errorf("%s: a read gave no token: %v, %d, %s", p.path, err, a.status, a.errors)
			return
		}
		p.reads++
		p.seen[a.accessToken] = true
		if a.cache != p.cache || (a.secret.LeaseID != "") != p.leased {
			p.t.Errorf("%s: X-Cache is %q, the lease %q", p.path, a.cache, a.secret.LeaseID)
			return
		}
		kept := time.After(200 * time.Millisecond)
		if p.keeps {
			kept = time.After(p.keep(a.secret))
		}
		for waiting := true; waiting; {
			if !p.redox.IsLive(a.accessToken) {
				p.t.Errorf("%s: the program holds a token that has ended, after %d renewals", p.path, len(p.seen)-1)
				return
			}
			select {
			case <-kept:
				waiting = false
			case <-deadline:
				p.t.Errorf("%s: waited in vain: %d tokens were seen", p.path, len(p.seen))
				return
			case <-time.After(20 * time.Millisecond): // there is no event to wait for
			}
		}
	}
}

// keep is for how long an answer may be kept.
func (p *program) keep(s secret) time.Duration {
	if p.leased {
		return time.Duration(s.LeaseDuration) * time.Second
	}
	ttl, _ := s.Data["ttl"].(float64)
	return time.Duration(ttl) * time.Second
}

// TestProgramsReadWithoutAPause has programs read over some renewals, from Vault itself, and through Proxy with its
// cache on, with a lease and without. Whether they ask each time or keep the token for as long as the answer says, it is live at
// every moment. Proxy passes each read on: it adds none and keeps none.
func TestProgramsReadWithoutAPause(t *testing.T) {
	verifyOnly(t, "renewals for a minute and a half")
	t.Parallel()
	// The engine renews at half of the lifetime where somebody asks all the time, as here.
	const lifetime, renewals = 20 * time.Second, 5
	e := newAgentEngine(t, lifetime)
	var programs []*program
	for _, server := range []string{"vault", "proxy"} {
		for _, leased := range []bool{false, true} {
			role := fmt.Sprintf("%s-%v", server, leased)
			p := program{engine: e, path: e.at("token/" + role), leased: leased}
			if server == "vault" {
				e.must("write", e.at("roles/"+role), fmt.Sprintf("leased=%v", leased))
				p.address, p.vaultToken = e.vault.address, e.as(role, map[string]string{"token/" + role: "read"}).token
			} else {
				p.address, p.vaultToken = startListening(e, role, leased).address, "none"
				p.cache = "MISS"
			}
			always, keeps := p, p
			keeps.keeps = true
			programs = append(programs, &always, &keeps)
		}
	}
	var group sync.WaitGroup
	for _, p := range programs {
		group.Go(func() { p.run(lifetime, renewals) })
	}
	group.Wait()
	for i := 0; i < len(programs); i += 2 {
		always, keeps := programs[i], programs[i+1]
		if n := e.reads(always.path); n != always.reads+keeps.reads {
			t.Errorf("%s: %d reads reached Vault, of %d and %d", always.path, n, always.reads, keeps.reads)
		}
		if keeps.reads != len(keeps.seen) {
			t.Errorf("%s: who kept each token for its time read %d times for %d tokens", keeps.path, keeps.reads, len(keeps.seen))
		}
	}
}

// TestServesProgramsOfTheMachine shows who gets what from Proxy's listener: the role's token, as fresh as Vault's,
// with a lease or without; nothing else, and nobody who doesn't send the header.
func TestServesProgramsOfTheMachine(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	type served struct {
		*listening
		path, old string
	}
	var all []served
	for _, leased := range []bool{false, true} {
		role := fmt.Sprintf("leased-%v", leased)
		s := served{listening: startListening(e, role, leased), path: e.at("token/" + role)}
		if s.old = s.read(); s.old != e.accessToken("token/"+role) {
			t.Errorf("%s: another token than Vault's", role)
		}
		all = append(all, s)
	}
	for _, s := range all {
		await(t, "a token that counts as fresh no more", func() bool {
			return e.data("write", "-f", s.path)["access_token"] != s.old
		})
		if fresh := s.read(); fresh == s.old || fresh != e.accessToken("token/"+s.role) {
			t.Errorf("%s: holds on to an old token", s.role)
		}
		for path, want := range map[string]int{
			e.at("config"): http.StatusForbidden, e.at("token/other"): http.StatusForbidden, "sys/mounts": http.StatusForbidden,
		} {
			if a, err := get(httpClient, s.address, "none", path); err != nil || a.status != want {
				t.Errorf("%s: a program gets %s with %d, %v", s.role, path, a.status, err)
			}
		}
		if a, err := get(httpClient, s.address, "its-own", s.path); err != nil || a.accessToken == "" {
			t.Errorf("%s: a program with a Vault token of its own gets no Redox token: %v, %s", s.role, err, a.errors)
		}
		stranger := person{t, &vaultServer{address: s.address}, ""}
		if response, _ := stranger.http(http.MethodGet, s.path, ""); response.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("%s: a request without the header is answered with %s", s.role, response.Status)
		}
	}
}

// TestProxyLogsInAgain takes Proxy's Vault token away: it gets another one, and programs the Redox token.
func TestProxyLogsInAgain(t *testing.T) {
	skipWhereLacking(t)
	t.Parallel()
	e := newReadyEngine(t)
	l := startListening(e, "leased", true)
	token := l.read()
	login := "auth/" + e.path + "-leased/login"
	if n := e.reads(login); n != 1 {
		t.Fatalf("Proxy has logged in %d times", n)
	}
	e.must("token", "revoke", "-mode=path", "auth/"+e.path+"-leased")
	await(t, "Proxy to log in again", func() bool {
		a, err := get(httpClient, l.address, "none", e.at("token/leased"))
		return err == nil && a.accessToken == token && e.reads(login) == 2
	})
	if !e.redox.IsLive(token) {
		t.Error("the token has ended with the lease")
	}
}

// TestListenerDocumentation runs the commands by which the README shows what the listener gives, and the Unix socket for one
// user.
func TestListenerDocumentation(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	l := startListening(e, "of-proxy", false)
	l.bash(l.directory, l.commands()[2])

	block := regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$").FindStringSubmatch(l.text("README.md"))
	if block == nil {
		t.Fatal("the README has no Unix socket")
	}
	block[1] = strings.NewReplacer(`socket_user  = "my-program"`, fmt.Sprintf("socket_user = \"%d\"", os.Getuid()),
		`socket_group = "my-program"`, fmt.Sprintf("socket_group = \"%d\"", os.Getgid())).Replace(block[1])
	tcp := regexp.MustCompile(`(?ms)^listener "tcp" \{.*?^\}\n`)
	l.put("socket.hcl", tcp.ReplaceAllLiteralString(l.text("proxy.hcl"), block[1]), 0o600)
	l.start("proxy", "socket.hcl")
	socket := filepath.Join(l.directory, "proxy.sock")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
	l.await(client)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is not for one user: %v, %v", info, err)
	}
	l.bash(l.directory, l.commands()[3])
}
