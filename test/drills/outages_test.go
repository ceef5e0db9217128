// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/testvault"
)

// outage is something that goes wrong at Redox, from a moment at which a fresh token is held until after its end.
type outage struct {
	what   string
	begin  func(*report, *mount)
	end    func(*report, *mount)
	tls    bool
	config map[string]any
	status int           // what readers get once the token has ended
	says   string        // in their error
	length time.Duration // 0: outageLength
}

const (
	outageLifetime = 8 * time.Second
	outageLength   = 14 * time.Second
	// longestPause is the longest that the engine remembers a failure.
	longestPause = 30 * time.Second
	// slack is what a slow machine may need beyond that.
	slack = 5 * time.Second
)

// faulty is an outage in which Redox answers wrongly.
func faulty(what string, faults sandbox.Faults, status int, says string) outage {
	return outage{what: what, status: status, says: says,
		begin: func(_ *report, m *mount) { m.redox.SetFaults(faults) },
		end:   func(_ *report, m *mount) { m.redox.SetFaults(sandbox.Faults{}) },
	}
}

// shows is an outage in which Redox's certificate is another.
func shows(what string, certificate func(*report, *mount) error, status int, says string) outage {
	return outage{what: what, tls: true, status: status, says: says,
		begin: func(d *report, m *mount) { d.must(certificate(d, m)) },
		end: func(d *report, m *mount) {
			proper, err := m.redox.authority.issue(good)
			d.must(err)
			d.must(m.redox.show(proper))
		},
	}
}

// pastExpiry goes through an outage: a token is held, it ends, there is none, Redox is back.
func (o outage) pastExpiry(d *report) {
	if o.length == 0 {
		o.length = outageLength
	}
	m := newMount(d, d.servers[0], mountOptions{lifetime: outageLifetime, tls: o.tls, config: o.config})
	r := read(d, m)
	began := m.mintNow(d)
	d.do("a token of %s, then %s for %s", outageLifetime, o.what, o.length)
	asked := time.Now()
	o.begin(d, m)
	time.Sleep(time.Until(began.Add(o.length)))
	o.end(d, m)
	back := time.Now()
	took, err := r.awaitToken(back)
	d.must(err)
	time.Sleep(time.Second)

	during, all := r.between(began, back), r.sinceStart()
	d.saw("%s", during)
	requests := len(m.redox.since(asked)) - len(m.redox.since(back))
	// A role is tried from half the token's life on, by refresh ahead.
	tries := mostTries(o.length - outageLifetime/2 + time.Second)
	allowed := tries * (1 + defaultRetries)
	d.atRedox("%d token requests during it", requests)
	d.checkEnd(during, began.Add(outageLifetime))
	d.check(during.only(o.status), "errors had status %d and no other", o.status)
	d.check(strings.Contains(during.mostly(), o.says), "they said: %s", hideAddress(during.mostly(), m))
	d.check(requests <= allowed, "Redox got %d requests, at most %d are allowed by the pauses after failures", requests, allowed)
	failed := m.failedMints(d) // also those of which Redox got no request
	d.check(failed <= tries, "%d mints failed, at most %d are allowed by the pauses", failed, tries)
	d.check(took <= longestPause+slack, "tokens came again %s after Redox was back", short(took))
	d.check(all.refused == 0, "%d tokens were handed out that Redox did not take", all.refused)
}

// checkEnd checks that there were errors, and none before the token's end.
func (d *report) checkEnd(during seen, end time.Time) {
	if during.failed() == 0 {
		d.check(false, "there was no error, so the outage was none")
		return
	}
	early := end.Sub(during.firstError)
	d.check(early < time.Second, "the first error came %s after the token's end", short(-early))
}

// hideAddress takes a port that differs from run to run out of an error.
func hideAddress(text string, m *mount) string {
	return strings.ReplaceAll(text, m.redox.address, "REDOX")
}

// shortOutage is over before the token that is held ends.
func shortOutage(d *report) {
	const lifetime = 20 * time.Second
	m := newMount(d, d.servers[0], mountOptions{lifetime: lifetime})
	r := read(d, m)
	minted := m.mintNow(d)
	time.Sleep(time.Until(minted.Add(8 * time.Second)))
	began := time.Now()
	m.redox.down()
	// The last try that fails comes before 15 s, and the pause after it, 4 s, ends before the token does.
	time.Sleep(time.Until(minted.Add(15 * time.Second)))
	d.must(m.redox.up())
	time.Sleep(time.Until(minted.Add(23 * time.Second)))
	s := r.sinceStart()
	d.do("a token of %s; nobody listens at Redox's address from its 8th to its 15th second", lifetime)
	d.saw("%s", s)
	d.atRedox("%d token requests after it was back", len(m.redox.since(began)))
	d.check(s.failed() == 0, "%d readers got an error", s.failed())
	d.check(s.without == 0, "%s without a valid token", short(s.without))
	d.check(s.refused == 0, "%d tokens were handed out that Redox did not take", s.refused)
	d.check(len(m.redox.since(began)) > 0, "there was a new token in the end")
}

// checkedBack is an outage after which somebody asks for a check.
func checkedBack(d *report) {
	// Not before the fifth try has failed: the pause after that, 16 s, would go on for more than slack.
	const length = 25 * time.Second
	m := newMount(d, d.servers[0], mountOptions{lifetime: outageLifetime})
	r := read(d, m)
	m.mintNow(d)
	m.redox.down()
	time.Sleep(length)
	d.must(m.redox.up())
	back := time.Now()
	check := m.check(d)
	took, err := r.awaitToken(back)
	d.must(err)
	d.do("a token of %s; nobody listens at Redox's address for %s; once it is back, a write to check", outageLifetime, length)
	d.saw("%s", r.sinceStart())
	d.atRedox("%d token requests after it was back", len(m.redox.since(back)))
	d.check(check["ok"] == true, "the check says ok %v", check["ok"])
	d.check(took <= slack, "tokens came again %s after Redox was back", short(took))
}

// retryAfter is Redox asking to wait, in the way that header says.
func retryAfter(header func(now time.Time) string, wait time.Duration, how string) func(*report) {
	return func(d *report) {
		const lifetime, length = 20 * time.Second, 17 * time.Second
		m := newMount(d, d.servers[0], mountOptions{lifetime: lifetime})
		r := read(d, m)
		minted := m.mintNow(d)
		time.Sleep(time.Until(minted.Add(lifetime/2 - time.Second)))
		began := time.Now()
		value := header(began)
		m.redox.SetFaults(sandbox.Faults{Status: http.StatusTooManyRequests, RetryAfter: value})
		d.do("a token of %s; before its renewal Redox begins to answer 429 with Retry-After %s, for %s", lifetime, how, length)
		d.must(await("the first refusal", func() bool { return len(m.redox.since(began)) > 0 }))
		time.Sleep(time.Until(began.Add(length)))
		m.redox.SetFaults(sandbox.Faults{})
		back := time.Now()
		took, err := r.awaitToken(back)
		d.must(err)
		during := r.between(began, back)
		d.saw("%s", during)
		arrivals := m.redox.since(began)
		refused := arrivals[:len(arrivals)-len(m.redox.since(back))]
		least := time.Hour
		for i, a := range refused[1:] {
			least = min(least, a.at.Sub(refused[i].at))
		}
		d.atRedox("%d token requests that were refused, %s apart at least", len(refused), short(least))
		d.check(len(refused) > 1, "there was more than one")
		d.check(least >= wait, "no two were closer than the %s that Redox asked for", wait)
		d.check(during.failed() == during.errors[http.StatusBadGateway]+during.errors[http.StatusGatewayTimeout],
			"errors had status 502 (told by Redox) or 504 (the host is let alone) and no other")
		d.checkEnd(during, minted.Add(lifetime))
		d.check(took <= longestPause+slack, "tokens came again %s after the last 429", short(took))
		d.check(strings.Contains(during.mostly(), "asks to wait") || strings.Contains(during.mostly(), "limits requests"), "readers were told: %s", hideAddress(during.mostly(), m))
	}
}

// untilDate is Redox asking not to come back before a date.
func untilDate(d *report) {
	const lifetime, wait = 20 * time.Second, 9 * time.Second
	m := newMount(d, d.servers[0], mountOptions{lifetime: lifetime})
	r := read(d, m)
	minted := m.mintNow(d)
	time.Sleep(time.Until(minted.Add(lifetime/2 - time.Second)))
	date := time.Now().Add(wait).Truncate(time.Second)
	began := time.Now()
	m.redox.SetFaults(sandbox.Faults{Status: http.StatusTooManyRequests, RetryAfter: date.UTC().Format(http.TimeFormat), Count: 1})
	d.must(await("the second request", func() bool { return len(m.redox.since(began)) > 1 }))
	d.must(await("its answer", func() bool { return answered(m.redox) }))
	time.Sleep(time.Second)
	arrivals := m.redox.since(began)
	s := r.sinceStart()
	d.do("a token of %s; at its renewal Redox answers 429 with the date, some %s ahead, before which nobody is to ask again",
		lifetime, wait)
	d.saw("%s", s)
	early := 0
	for _, a := range arrivals[1:] {
		if a.at.Before(date) {
			early++
		}
	}
	d.atRedox("1 token request that was refused, the next one %s after the date", short(arrivals[1].at.Sub(date)))
	d.check(early == 0, "%d requests came before the date", early)
	d.check(s.failed() == 0 && s.without == 0, "%d readers got an error; %s without a valid token", s.failed(), short(s.without))
}

// bursts are answers that the engine's own retries, or the life that is left in a token, hide from readers.
func bursts(faults ...sandbox.Faults) func(*report) {
	return func(d *report) {
		const lifetime = 16 * time.Second // long enough for the pauses after two failures
		m := newMount(d, d.servers[0], mountOptions{lifetime: lifetime})
		r := read(d, m)
		began := time.Now()
		kinds := []string{}
		failures := 0 // of mints: the engine does not try again at once after a 500
		for _, f := range faults {
			f.Count = 2
			if f.Status == http.StatusInternalServerError {
				failures += f.Count
			}
			issued := m.redox.Counters().Token.Issued
			if f.ResetMidBody {
				issued += f.Count // Redox has issued what does not arrive
			}
			m.redox.SetFaults(f)
			name := fmt.Sprint(f.Status)
			if f.ResetMidBody {
				name = "a body that breaks off"
			} else if f.Reset {
				name = "a connection that is reset"
			}
			kinds = append(kinds, name)
			d.must(await("the burst to be over", func() bool { return m.redox.Faults().Count == 0 }))
			d.must(await("a new token", func() bool { return m.redox.Counters().Token.Issued > issued }))
			time.Sleep(time.Second)
		}
		s := r.sinceStart()
		d.do("tokens of %s; Redox answers two requests in a row with %s, again and again", lifetime,
			strings.Join(kinds, ", then two with "))
		d.saw("%s", s)
		c := m.redox.Counters().Token
		d.atRedox("%d token requests in %s", len(m.redox.since(began)), short(time.Since(began)))
		d.check(c.Requests > 2*len(faults), "all bursts were met")
		failed := m.failedMints(d)
		d.check(failed == failures, "%d mints failed: those of the %d answers 500, after all others the engine tries again at once",
			failed, failures)
		d.check(s.failed() == 0, "%d readers got an error", s.failed())
		d.check(s.without == 0, "%s without a valid token", short(s.without))
		d.check(s.refused == 0, "%d tokens were handed out that Redox did not take", s.refused)
	}
}

// hugeBody is an answer that must not fill the plugin's memory.
func hugeBody(d *report) {
	const size = 512 << 20
	before := 0
	o := faulty(fmt.Sprintf("answers of %d MiB", size>>20), sandbox.Faults{HugeBody: size},
		http.StatusBadGateway, "larger than 64 KiB")
	begin := o.begin
	o.begin = func(d *report, m *mount) { // now there is a process
		var err error
		before, err = pluginMemory(m.vault)
		d.must(err)
		begin(d, m)
	}
	o.pastExpiry(d)
	after, err := pluginMemory(d.servers[0])
	d.must(err)
	d.check(after-before < 64, "the most memory the plugin ever had grew by %d MiB", after-before)
}

// pluginMemory gives the most memory that the plugin's processes ever had, in MiB.
func pluginMemory(v *server) (megabytes int, err error) {
	ids, err := v.pluginProcesses()
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		bytes, err := testvault.Memory(id, "VmHWM")
		if err != nil {
			return 0, err
		}
		megabytes += int(bytes >> 20)
	}
	return megabytes, nil
}

// noAddress is a host name that DNS does not know. Writing it drops the token that was held, as it was of another place.
func noAddress(d *report) {
	const length = 8 * time.Second
	m := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second})
	r := read(d, m)
	began := time.Now()
	d.must2(m.vault.must("POST", m.path+"/config", map[string]any{"base_url": "https://redox.invalid"}))
	time.Sleep(length)
	d.must2(m.vault.must("POST", m.path+"/config", map[string]any{"base_url": m.redox.BaseURL}))
	back := time.Now()
	took, err := r.awaitToken(back)
	d.must(err)
	during := r.between(began.Add(time.Second), back)
	d.do("base_url with a host name that does not exist, for %s; then the right one again", length)
	d.saw("%s", during)
	d.atRedox("%d token requests during it", len(m.redox.since(began))-len(m.redox.since(back)))
	d.check(during.failed() > 0 && during.only(http.StatusBadGateway), "errors had status 502 and no other")
	d.check(strings.Contains(during.mostly(), "DNS"), "they said: %s", hideAddress(during.mostly(), m))
	d.check(took <= slack, "tokens came again %s after the right name was written", short(took))
}

// clock is Redox's clock being off, and what that does with the default settings.
func clock(offset time.Duration, works bool) func(*report) {
	return func(d *report) {
		m := newMount(d, d.servers[0], mountOptions{lifetime: outageLifetime})
		r := read(d, m)
		began := m.mintNow(d)
		asked := time.Now()
		m.redox.SetFaults(sandbox.Faults{ClockOffset: sandbox.Duration(offset)})
		time.Sleep(outageLength)
		check := m.check(d)
		m.redox.SetFaults(sandbox.Faults{})
		back := time.Now()
		took, err := r.awaitToken(back)
		d.must(err)
		during := r.between(began, back)
		d.do("a token of %s, then Redox's clock is %s off for %s", outageLifetime, offset, outageLength)
		d.saw("%s", during)
		d.atRedox("%d token requests during it", len(m.redox.since(asked))-len(m.redox.since(back)))
		apart, _ := check["clock_offset"].(float64)
		d.check(time.Duration(apart)*time.Second >= offset-2*time.Second && time.Duration(apart)*time.Second <= offset+2*time.Second,
			"the check says clock_offset %.0f", apart)
		if works {
			d.check(during.failed() == 0 && during.without == 0, "%d readers got an error", during.failed())
			d.check(check["ok"] == true, "the check says ok %v", check["ok"])
			return
		}
		d.checkEnd(during, began.Add(outageLifetime))
		d.check(during.only(http.StatusBadRequest), "errors had status 400 and no other")
		d.check(strings.Contains(fmt.Sprint(check["cause"]), "clock of the Vault server is"), "the check says: %v", check["cause"])
		d.check(took <= longestPause+slack, "tokens came again %s after the clock was right", short(took))
	}
}
