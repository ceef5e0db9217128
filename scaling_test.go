// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/marks"
	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// The numbers of docs/internals/scaling.md. Its tables stand between marks and are made here: -update writes them anew.

const scalingPage = "docs/internals/scaling.md"

// documentedBlock holds a part of the page against what came out, or writes it.
func documentedBlock(t *testing.T, name, block string) {
	t.Helper()
	t.Logf("%s:\n%s", name, block)
	marks.Hold(t, scalingPage, name, "\n"+block+"\n", *updateGolden)
}

// What the simulation takes for granted: a Redox token's life, the default min_ttl, and how long an exchange takes.
const (
	simulatedLife     = 300 * time.Second
	simulatedMargin   = 30 * time.Second
	simulatedExchange = 300 * time.Millisecond
	simulatedDay      = 24 * time.Hour
)

// simulated is a day of some roles that are all used in the same way, on one or more nodes.
type simulated struct {
	name  string
	nodes int           // 0 in the list below stands for 1
	lasts time.Duration // 0: a day
	herd  bool          // all read first within one second
	// roles are simulated to get an average.
	roles   int
	readers int           // of a role
	each    time.Duration // mean time between two reads of a reader; 0: goes by ttl, as Vault Agent does
	writes  bool          // asks for a fresh token each time
	broken  bool          // Redox rejects all
	formula string        // as the page has it
	// period is the formula's divisor: seconds from one mint to the next, with the mean seconds to the next read.
	period func(next float64) float64
}

// day is what came of it.
type day struct {
	reads, mints int
	perMinute    []int // mints
}

// run lives through a day with the engine's own cache. It has to be called in a bubble of synctest.
func (s *simulated) run() day {
	var mu sync.Mutex
	lasts := cmp.Or(s.lasts, simulatedDay)
	result := day{perMinute: make([]int, lasts/time.Minute)}
	start := time.Now()
	mint := func(context.Context, string, tokencache.Demand[*token]) (tokencache.Minted[*token], error) {
		requested := time.Now()
		mu.Lock()
		result.mints++
		if minute := int(requested.Sub(start) / time.Minute); minute < len(result.perMinute) {
			result.perMinute[minute]++
		}
		mu.Unlock()
		time.Sleep(simulatedExchange)
		if s.broken {
			return tokencache.Minted[*token]{}, &redox.Error{Kind: redox.Rejected}
		}
		return tokencache.Minted[*token]{Value: &token{}, Lifetime: simulatedLife, MinTTL: simulatedMargin,
			RequestedAt: tokencache.Instant{Wall: requested}}, nil
	}
	nodes := make([]*tokencache.Cache[*token], s.nodes)
	for i := range nodes {
		shares := rand.New(rand.NewPCG(uint64(i), 0)) // which the cache uses under its lock
		nodes[i] = tokencache.New(tokencache.Options[*token]{Mint: mint, Pauses: mintPauses,
			Now: func() tokencache.Instant { return tokencache.Instant{Wall: time.Now()} }, Share: shares.Float64})
	}
	var readers sync.WaitGroup
	for role := range s.roles {
		for reader := range s.readers {
			readers.Go(func() {
				name, random := strconv.Itoa(role), rand.New(rand.NewPCG(uint64(role), uint64(reader)))
				first := s.each
				if first == 0 {
					first = time.Minute
				}
				if s.herd {
					first = time.Second
				}
				next := time.Duration(random.Float64() * float64(first))
				for time.Since(start)+next < lasts {
					time.Sleep(next)
					node := nodes[random.IntN(len(nodes))] // as a load balancer does it
					ask := node.Get
					if s.writes {
						ask = node.Fresh
					}
					served, _ := ask(context.Background(), name)
					mu.Lock()
					result.reads++
					mu.Unlock()
					next = time.Duration(random.ExpFloat64() * float64(s.each))
					if s.each == 0 {
						next = time.Duration(served.TTL()+1) * time.Second
					}
				}
			})
		}
	}
	readers.Wait()
	for _, node := range nodes {
		node.Wait()
		node.Close()
	}
	return result
}

// mintsPerDay is what the page's formula says of one role.
func (s *simulated) mintsPerDay() float64 {
	if s.readers == 0 {
		return 0
	}
	next := s.each.Seconds() / float64(s.readers) * float64(s.nodes)
	return float64(s.nodes) * simulatedDay.Seconds() / s.period(next)
}

// TestScalingOfMints lives through a day of several kinds of use, and compares the mints with the page's formulas.
func TestScalingOfMints(t *testing.T) {
	const exchange = float64(simulatedExchange) / float64(time.Second)
	whenRead := func(next float64) float64 { return 240 + next }
	whenRejected := func(next float64) float64 {
		if next > 60 { // the pause before is forgotten
			return 1 + exchange + next
		}
		return 30 + exchange + next
	}
	rows := []simulated{
		{name: "nobody", roles: 10, formula: "0"},
		{name: "1 program, each hour", roles: 200, readers: 1, each: time.Hour,
			formula: "86,400 / (240 + 3,600)", period: whenRead},
		{name: "1 program, each 5 minutes", roles: 50, readers: 1, each: 5 * time.Minute,
			formula: "86,400 / (240 + 300)", period: whenRead},
		{name: "1 program, each 10 s", roles: 5, readers: 1, each: 10 * time.Second, formula: "86,400 / (240 + 10)", period: whenRead},
		{name: "10 programs, each 10 s", roles: 3, readers: 10, each: 10 * time.Second,
			formula: "86,400 / (240 + 1)", period: whenRead},
		{name: "100 programs, each 60 s", roles: 2, readers: 100, each: time.Minute,
			formula: "86,400 / (240 + 0.6)", period: whenRead},
		{name: "100 programs, each 60 s, on 3 nodes", nodes: 3, roles: 2, readers: 100, each: time.Minute,
			formula: "3 × 86,400 / (240 + 1.8)", period: whenRead},
		{name: "1 Agent", roles: 20, readers: 1, formula: "86,400 / (262.5 + 1)", period: func(float64) float64 { return 263.5 }},
		{name: "100 Agents", roles: 2, readers: 100, formula: "86,400 / (262.5 + 1)", period: func(float64) float64 { return 263.5 }},
		{name: "10 programs that *write*, each 10 s", roles: 2, readers: 10, each: 10 * time.Second, writes: true,
			formula: "86,400 / (2 + 0.3 + 1)", period: func(next float64) float64 { return 2 + exchange + next }},
		{name: "Redox rejects; 10 programs, each 10 s", roles: 3, readers: 10, each: 10 * time.Second, broken: true,
			formula: "86,400 / (30 + 0.3 + 1)", period: whenRejected},
		{name: "Redox rejects; 100 programs, each 60 s", roles: 2, readers: 100, each: time.Minute, broken: true,
			formula: "86,400 / (30 + 0.3 + 0.6)", period: whenRejected},
		{name: "Redox rejects; 1 program, each 5 minutes", roles: 50, readers: 1, each: 5 * time.Minute, broken: true,
			formula: "86,400 / (1 + 0.3 + 300)", period: whenRejected},
	}
	var table strings.Builder
	table.WriteString("| A role is read by | Reads a day | Mints a day | Formula | gives |\n|---|---:|---:|---|---:|\n")
	for i := range rows {
		s := &rows[i]
		s.nodes = max(s.nodes, 1)
		var got day
		synctest.Test(t, func(*testing.T) { got = s.run() })
		reads, mints := float64(got.reads)/float64(s.roles), float64(got.mints)/float64(s.roles)
		expected := s.mintsPerDay()
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", s.name, thousands(reads), thousands(mints), s.formula, thousands(expected))
		if math.Abs(mints-expected) > 0.04*expected {
			t.Errorf("%s: %.1f mints a day, by the formula %.1f", s.name, mints, expected)
		}
	}
	documentedBlock(t, "mints of a role in a day", strings.TrimSpace(table.String()))
}

// TestScalingAfterRestart looks at how mints bunch when all roles have lost their tokens in the same moment: not for long.
func TestScalingAfterRestart(t *testing.T) {
	const most = 25 // percent of the roles in a minute; 20 would be one mint for each token's life
	var table strings.Builder
	table.WriteString("| | 1st minute | busiest minute of the first hour after that | of hour 2 | mean |\n|---|---:|---:|---:|---:|\n")
	uses := []simulated{
		{name: "each role is read each 10 s", each: 10 * time.Second, roles: 16_000},
		{name: "each role is read each 60 s", each: time.Minute, roles: 4000},
		{name: "each role is read by an Agent, which comes back after `ttl`", roles: 4000},
	}
	if !allSimulations() { // the first takes a minute
		uses = uses[1:]
	}
	for _, s := range uses {
		s.nodes, s.readers, s.lasts, s.herd = 1, 1, 2*time.Hour, true
		var got day
		synctest.Test(t, func(*testing.T) { got = s.run() })
		share := func(mints float64) string { return fmt.Sprintf("%.0f", 100*mints/float64(s.roles)) }
		hour1, hour2 := slices.Max(got.perMinute[1:60]), slices.Max(got.perMinute[60:])
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", s.name, share(float64(got.perMinute[0])), share(float64(hour1)), share(float64(hour2)),
			share(float64(got.mints)/float64(len(got.perMinute))))
		if share(float64(hour2)) > fmt.Sprint(most) {
			t.Errorf("%s: %d of %d roles renew in the busiest minute of hour 2", s.name, hour2, s.roles)
		}
	}
	if !allSimulations() {
		t.Log(table.String())
		return
	}
	documentedBlock(t, "mints in a minute after a restart", strings.TrimSpace(table.String()))
}

// failover is many roles that lose their tokens at once, behind one source address.
type failover struct {
	roles        int
	requestLimit int
	each         time.Duration // between two reads of a role, 20 % more or less
	lasts        time.Duration

	served, limited, asked, failed, reads int
	allServed                             time.Duration // 0: not in the time
	wronged                               int           // reads that failed though the role had a living token
}

// countingServer takes so many requests within five minutes, as Redox does for a source address.
type countingServer struct {
	mu     sync.Mutex
	within []time.Time
}

func (s *countingServer) takes(most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	first := 0
	for first < len(s.within) && now.Sub(s.within[first]) >= 5*time.Minute {
		first++
	}
	s.within = append(s.within[first:], now)
	return len(s.within) <= most
}

// run lives through it with the engine's own cache and gate. It has to be called in a bubble of synctest.
func (f *failover) run() {
	start := time.Now()
	now := func() tokencache.Instant {
		return tokencache.Instant{Wall: time.Now(), Monotonic: time.Since(start)}
	}
	c := defaultConfig()
	c.RequestLimit = f.requestLimit
	hosts, server := gates{now: now}, &countingServer{}
	host := hosts.of(c.tokenURL(), c.limits())
	var mu sync.Mutex
	mint := func(ctx context.Context, _ string, d tokencache.Demand[*token]) (tokencache.Minted[*token], error) {
		pass, err := host.Enter(gate.With(ctx, gate.Place{Class: gate.Ahead, Waited: d.Since.Age(now()), Raised: d.Awaited}))
		if refusal := (*gate.Refusal)(nil); errors.As(err, &refusal) {
			return tokencache.Minted[*token]{}, &redox.Error{Kind: redox.Timeout, NotSent: true, RetryAfter: refusal.Wait}
		}
		if err != nil {
			return tokencache.Minted[*token]{}, err
		}
		defer pass.Leave()
		requested, takes := now(), server.takes(7500)
		time.Sleep(simulatedExchange)
		mu.Lock()
		defer mu.Unlock()
		f.asked++
		if !takes {
			f.limited++
			host.Limited(0)
			return tokencache.Minted[*token]{}, &redox.Error{Kind: redox.Unavailable, StatusCode: 429}
		}
		host.Answered()
		return tokencache.Minted[*token]{Value: &token{}, Lifetime: simulatedLife, MinTTL: simulatedMargin, RequestedAt: requested}, nil
	}
	cache := tokencache.New(tokencache.Options[*token]{Mint: mint, Pauses: mintPauses, Now: now})
	var readers sync.WaitGroup
	for role := range f.roles {
		readers.Go(func() {
			name, random := strconv.Itoa(role), rand.New(rand.NewPCG(uint64(role), 0))
			var ends time.Time
			next := time.Duration(random.Float64() * float64(10*time.Second))
			for time.Since(start)+next < f.lasts {
				time.Sleep(next)
				next = time.Duration((0.8 + 0.4*random.Float64()) * float64(f.each))
				before := time.Now()
				served, err := cache.Get(context.Background(), name)
				mu.Lock()
				f.reads++
				switch {
				case err == nil && ends.IsZero():
					f.served++
					if f.served == f.roles {
						f.allServed = time.Since(start)
					}
				case err != nil:
					f.failed++
					if ends.After(before) && ends.After(time.Now()) {
						f.wronged++
					}
				}
				if err == nil {
					ends = time.Now().Add(served.Remaining)
				}
				mu.Unlock()
			}
		})
	}
	readers.Wait()
	cache.Close()
	cache.Wait()
}

// TestScalingAfterFailover: with the gate no role that has a token is refused, the server limits no request, and who has none
// gets one in turn.
func TestScalingAfterFailover(t *testing.T) {
	rows := []failover{
		{roles: 1000, requestLimit: 5000, each: time.Minute, lasts: 15 * time.Minute},
		{roles: 3000, requestLimit: 5000, each: time.Minute, lasts: 30 * time.Minute},
		{roles: 10_000, requestLimit: 5000, each: time.Minute, lasts: time.Hour},
		{roles: 10_000, requestLimit: 0, each: time.Minute, lasts: time.Hour},
		{roles: 100_000, requestLimit: 5000, each: 4 * time.Minute, lasts: 3 * time.Hour},
	}
	if !allSimulations() { // the others take minutes
		rows = rows[:2]
	}
	var table strings.Builder
	table.WriteString("| Roles | each read each | `request_limit` | All have had a token after | Requests to Redox | of these answered with 429 | Reads | failed | failed though the role had a token |\n" +
		"|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, f := range rows {
		synctest.Test(t, func(*testing.T) { f.run() })
		limit, all := "none", "not within "+f.lasts.String()
		if f.requestLimit > 0 {
			limit = thousands(float64(f.requestLimit))
			if f.limited > 0 {
				t.Errorf("%d roles: the server limits %d requests", f.roles, f.limited)
			}
		}
		if f.allServed > 0 {
			all = f.allServed.Round(time.Second).String()
			if limit := time.Duration(float64(f.roles-f.requestLimit/4)*400/float64(f.requestLimit)*1.3)*time.Second + 2*f.each; f.requestLimit > 0 && f.allServed > limit {
				t.Errorf("%d roles: all have had a token only after %s, not %s", f.roles, f.allServed, limit)
			}
		} else if f.requestLimit > 0 {
			t.Errorf("%d roles: only %d have had a token after %s", f.roles, f.served, f.lasts)
		}
		if f.wronged > 0 {
			t.Errorf("%d roles: %d reads failed though there was a token", f.roles, f.wronged)
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s | %s | %s | %.0f %% | %d |\n", thousands(float64(f.roles)), f.each, limit, all, thousands(float64(f.asked)),
			thousands(float64(f.limited)), thousands(float64(f.reads)), 100*float64(f.failed)/float64(f.reads), f.wronged)
	}
	if !allSimulations() {
		t.Log(table.String())
		return
	}
	if *updateGolden { // what has to be the same each time was checked above
		documentedBlock(t, "tokens after a failover", strings.TrimSpace(table.String()))
	}
}

// allSimulations reports whether those of thousands of roles are wanted, too, which take minutes: scripts/verify wants them.
func allSimulations() bool { return os.Getenv("SIMULATIONS") == "all" || *updateGolden }

// thousands writes a number to three digits or so, as the page does.
func thousands(n float64) string {
	if n != math.Trunc(n) && n < 100 {
		return fmt.Sprintf("%.1f", n)
	}
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// installation is a mount with keys and roles, whose storage and Redox are watched.
type installation struct {
	*mount

	mu            sync.Mutex
	reads, writes int
}

// newInstallation has the key "main" that the configuration names, further keys, and a role for each of a hundred client
// IDs, then ones that share the last. Redox knows them all.
func newInstallation(t *testing.T, keys, roles int) *installation {
	t.Helper()
	i := &installation{mount: newReadyMount(t)}
	main, err := i.storage.inner.Get(t.Context(), keysStoragePrefix+"main")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < keys; n++ { // the same again, for there is no need that they differ
		i.plant(fmt.Sprintf("%skey-%d", keysStoragePrefix, n), string(main.Value))
	}
	clientID := func(n int) string { // as hard to compress as any
		sum := sha256.Sum256([]byte(strconv.Itoa(min(n, 99))))
		return fmt.Sprintf("%x-%x-4%03x-8%03x-%x", sum[:4], sum[4:6], sum[6], sum[7], sum[8:14])
	}
	for n := range roles {
		i.plant(fmt.Sprintf("%srole-%d", rolesStoragePrefix, n), fmt.Sprintf(`{"schema_version":1,"client_id":%q}`, clientID(n)))
		if n < 100 {
			i.register(clientID(n), "main")
		}
	}
	i.write("config", fields{"client_id": clientID(0)})
	i.storage.onEach(func(operation, _ string) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		if operation == "get" || operation == "list" {
			i.reads++
		} else {
			i.writes++
		}
		return nil
	})
	return i
}

// manage has the key "main" registered through the Platform API.
func (i *installation) manage() {
	i.t.Helper()
	i.write("keys/management", fields{"algorithm": algorithmES384})
	jwk, _ := i.read("keys/management")["public_jwk"].(string)
	i.redox.CreateAPIKey(sandbox.APIKey{ID: "manager", Management: true, JWKSet: json.RawMessage(`{"keys":[` + jwk + `]}`)})
	i.write("roles/manager", fields{"client_id": "manager", "key": "management"})
	i.write("keys/main", fields{"registration": registrationPlatform, "platform_role": "manager"})
}

// cost says what something costs: reads and writes of storage, then requests to Redox where there are any.
func (i *installation) cost(do func()) (reads int, text string) {
	counted := func() (storage [2]int, redox [2]int) {
		i.mu.Lock()
		defer i.mu.Unlock()
		c := i.mount.redox.Counters()
		return [2]int{i.reads, i.writes}, [2]int{c.Token.Requests, c.Platform.Requests}
	}
	storage, asked := counted()
	do()
	i.minter.tokens.Wait()
	storageAfter, askedAfter := counted()
	reads = storageAfter[0] - storage[0]
	text = fmt.Sprintf("%s / %d", thousands(float64(reads)), storageAfter[1]-storage[1])
	for n, what := range []string{"token", "platform"} {
		if requests := askedAfter[n] - asked[n]; requests > 0 {
			text += fmt.Sprintf(", %d %s", requests, what)
		}
	}
	return reads, text
}

// TestScalingOfWork counts what each kind of work costs in installations of several sizes.
func TestScalingOfWork(t *testing.T) {
	type size struct{ keys, roles int }
	sizes := []size{{1, 10}, {1, 1000}, {100, 1000}}
	var names []string
	costs := map[string][]string{}
	for _, s := range sizes {
		i := newInstallation(t, s.keys, s.roles)
		// measure compares with the page's formula: constant + perKey × keys + perRole × roles.
		measure := func(name string, constant, perKey, perRole int, do func()) {
			t.Helper()
			if len(costs[name]) == 0 {
				names = append(names, name)
				costs[name] = []string{readsFormula(constant, perKey, perRole)}
			}
			reads, cost := i.cost(do)
			if want := constant + perKey*s.keys + perRole*s.roles; reads != want {
				t.Errorf("%s: %d reads of storage with %d keys and %d roles, by the formula %d", name, reads, s.keys, s.roles, want)
			}
			costs[name] = append(costs[name], cost)
		}
		wake := func() { i.maintainer.pass(t.Context()) }

		measure("a role's first mint", 3, 0, 0, func() { i.read("token/role-0") })
		measure("a read from memory", 0, 0, 0, func() { i.read("token/role-0") })
		i.clock.advance(time.Minute)
		wake() // stores what the mint has learned
		measure("a further mint", 3, 0, 0, func() { i.write("token/role-0", nil) })
		measure("`jwks` or `metrics`, first after a key has changed", 1, 1, 0, func() { i.read("jwks") })
		measure("`jwks` or `metrics`, then", 0, 0, 0, func() { i.read("jwks/main"); i.read("metrics") })
		measure("write a role", 3, 0, 0, func() { i.write("roles/role-0", fields{"scope": ""}) })
		measure("make a key", 10, 1, 0, func() { i.write("keys/new", fields{"algorithm": algorithmES384, "deletion_allowed": true}) })
		measure("delete a key", 4, 0, 1, func() { i.remove("keys/new") })
		measure("a wake-up, nothing to do", 1, 1, 0, wake)

		i.restart()
		measure("the clients are found, first after a start", 3, 0, 1, func() { must(i.maintainer.directory.read(t.Context())) })
		wake() // reads what is kept in memory from then on
		i.write("keys/main/rotate", nil)
		measure("a wake-up, a probe is due for each client ID", 2, 1, 0, wake)
		measure("a wake-up, no probe is due", 2, 1, 0, wake)
		i.write("keys/main/abandon", nil)

		i.manage()
		s.keys, s.roles = s.keys+1, s.roles+1
		wake()
		measure("a wake-up, `registration=platform`, nothing to do", 3, 1, 0, wake)
	}
	var table strings.Builder
	table.WriteString("| What | Reads |")
	for _, s := range sizes {
		fmt.Fprintf(&table, " k = %s, r = %s |", thousands(float64(s.keys)), thousands(float64(s.roles)))
	}
	table.WriteString("\n|---|---|" + strings.Repeat("---|", len(sizes)) + "\n")
	for _, name := range names {
		fmt.Fprintf(&table, "| %s | %s |\n", name, strings.Join(costs[name], " | "))
	}
	documentedBlock(t, "what work costs", strings.TrimSpace(table.String()))
}

// readsFormula writes reads of storage as a formula of the keys k and the roles r.
func readsFormula(constant, perKey, perRole int) string {
	formula := strconv.Itoa(constant)
	if perKey > 0 {
		formula += strings.Replace(fmt.Sprintf(" + %dk", perKey), " 1k", " k", 1)
	}
	if perRole > 0 {
		formula += strings.Replace(fmt.Sprintf(" + %dr", perRole), " 1r", " r", 1)
	}
	return formula
}

// TestScalingPastTheSizeOfAnEntry has what is known of a key outgrow what the storage takes.
func TestScalingPastTheSizeOfAnEntry(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.maintainer.pass(t.Context())
	m.write("keys/main/rotate", nil)
	m.registerPending("client-1", "main")
	m.storage.onEach(func(operation, key string) error {
		if operation == "put" && strings.HasPrefix(key, clientsStoragePrefix) {
			return errors.New("the entry is too large")
		}
		return nil
	})
	m.clock.advance(time.Hour)
	m.maintainer.pass(t.Context())
	m.read("token")
	if m.read("keys/main")["pending_public_jwk"] == "" {
		t.Error("the pending version was promoted, though its proof could not be stored")
	}
	if !strings.Contains(m.log.String(), "background work on a signing key failed") {
		t.Error("the log does not say that it failed")
	}
	m.storage.onEach(nil)
	m.maintainer.pass(t.Context())
	if m.read("keys/main")["pending_public_jwk"] != "" {
		t.Error("the pending version is not promoted, though its proof can be stored")
	}
}

// TestScalingOfStorage measures how large entries are. The sizes depend a little on Go and on chance, so that the page's need
// only be near.
func TestScalingOfStorage(t *testing.T) {
	const clientID = "0f6d6d2a-7a4c-4d5e-9a51-3a1c5b1d2e3f"
	clock := newTestClock()
	key, err := privatekey.Generate(algorithmRS384, 3072)
	if err != nil {
		t.Fatal(err)
	}
	version, err := newKeyVersion(key, "", false, clock.wall())
	if err != nil {
		t.Fatal(err)
	}
	k := defaultKey()
	if _, err := k.bring(version, ""); err != nil {
		t.Fatal(err)
	}
	sets, err := k.published()
	if err != nil {
		t.Fatal(err)
	}

	size := func(value any) float64 {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return float64(len(text))
	}
	const users = 100
	m := newInstallation(t, 1, users)
	ask := m.minter.requestToken
	m.minter.requestToken = func(ctx context.Context, c *roleConfig, request redox.TokenRequest) (*redox.Token, error) {
		m.clock.advance(time.Second) // so that the times that are stored differ
		return ask(ctx, c, request)
	}
	learned := func() float64 { // of each client ID, in the one entry for the key
		m.maintainer.pass(t.Context())
		return float64(m.storage.size(clientsStoragePrefix+"main")) / users // compressed
	}
	for n := range users {
		m.read(fmt.Sprintf("token/role-%d", n))
	}
	proved := learned()
	m.write("keys/main/rotate", nil)
	rejected := learned()
	m.manage()
	managed := learned()

	stored := func() float64 { return float64(len(m.storage.snapshot()[keysStoragePrefix+"rotated"])) }
	m.write("keys/rotated", map[string]any{"algorithm": algorithmRS384})
	before := stored()
	m.write("keys/rotated/rotate", nil)
	m.write("keys/rotated/activate", map[string]any{"force": true})
	m.write("keys/rotated/retire", map[string]any{"force": true})
	destroyed := stored() - before

	const entry = 1 << 20
	table := fmt.Sprintf(`| | |
|---|---:|
| storage of a role with a client ID | %s bytes |
| storage of a key with one version (RS384, 3072 bits) | %s bytes |
| what stays in storage of a version (RS384, 3072 bits) when its private key is destroyed | %s bytes |
| storage of a key with ten of those, and with the records of 100 destroyed ones | %s bytes |
| public JWK of one version (RS384, 3072 bits) | %s bytes |
| storage, in one entry for a key, of each client ID that has proven a version | %s bytes |
| the same, while Redox rejects a pending version | %s bytes |
| the same, with `+"`registration=platform`"+` as well | %s bytes |
| so many client IDs of one key fill an entry of 1 MiB | %s |
| the same, while Redox rejects a pending version | %s |
| the same, with `+"`registration=platform`"+` as well | %s |
| so many public JWKs (RS384, 3072 bits) fill 64 KiB | %s |`,
		about(size(&role{ClientID: clientID})), about(size(k)), about(destroyed),
		about(10*size(k)+100*destroyed), about(float64(len(sets[0].Compact()))),
		about(proved), about(rejected), about(managed), about(entry/proved), about(entry/rejected), about(entry/managed),
		about(64<<10/float64(len(sets[0].Compact()))))

	const name = "storage"
	if page := strings.TrimSpace(must(marks.Read(scalingPage, name))); !*updateGolden && near(t, page, table) {
		table = page
	}
	documentedBlock(t, name, table)
}

// about rounds to two digits.
func about(n float64) string {
	step := math.Pow(10, math.Floor(math.Log10(n))-1)
	return thousands(math.Round(n/step) * step)
}

// near reports whether two texts are the same but for numbers, which are off by a quarter at most.
func near(t *testing.T, page, made string) bool {
	t.Helper()
	numbers := regexp.MustCompile(`[\d,.]*\d`)
	if numbers.ReplaceAllString(page, "") != numbers.ReplaceAllString(made, "") {
		return false
	}
	ok := true
	was, is := numbers.FindAllString(page, -1), numbers.FindAllString(made, -1)
	for i := range was {
		a, _ := strconv.ParseFloat(strings.ReplaceAll(was[i], ",", ""), 64)
		b, _ := strconv.ParseFloat(strings.ReplaceAll(is[i], ",", ""), 64)
		if math.Abs(a-b) > max(a, b)/4 {
			t.Errorf("%s has %s where it is %s now", scalingPage, was[i], is[i])
			ok = false
		}
	}
	return ok
}
