// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"math/rand/v2"
	"strings"
	"time"

	vaultrotation "github.com/hashicorp/vault/sdk/rotation"
)

const (
	minRotationPeriod = time.Hour
	maxRotationPeriod = 10 * 365 * 24 * time.Hour
	// scheduledRunsChecked is how many runs of a schedule are looked at for being far enough apart.
	scheduledRunsChecked = 500
	// maxRotationDelay spreads the rotations of many keys with one schedule.
	maxRotationDelay = 10 * time.Minute
)

// rotationTimes is when a key rotates by itself.
type rotationTimes struct {
	period, window time.Duration
	schedule       string
}

func (k *signingKey) rotationTimes() rotationTimes {
	return rotationTimes{k.RotationPeriod, k.RotationWindow, k.RotationSchedule}
}

// next returns the first time after now, zero when there is none. The rotation manager that the parser belongs to is
// Vault Enterprise's, and not used here.
func (r rotationTimes) next(now time.Time) time.Time {
	switch {
	case r.period > 0:
		return now.Add(r.period)
	case r.schedule != "":
		if schedule, err := vaultrotation.DefaultScheduler.Parse(r.schedule); err == nil { // it was checked when it was written
			return vaultrotation.DefaultScheduler.NextRotationTimeFromInput(
				&vaultrotation.RotationSchedule{Schedule: schedule, RotationSchedule: r.schedule}, now.UTC())
		}
	}
	return time.Time{}
}

func (k *signingKey) checkRotationTimes(now time.Time) error {
	r := k.rotationTimes()
	if r.period != 0 {
		if r.schedule != "" {
			return fieldError("rotation_schedule", "give one of them and set the other to empty", "rotation_period is set, too")
		}
		if err := checkRange("rotation_period", r.period, minRotationPeriod, maxRotationPeriod); err != nil {
			return err
		}
	}
	if r.schedule != "" {
		if err := checkText("rotation_schedule", r.schedule); err != nil {
			return err
		}
		if !isCron(r.schedule) {
			return fieldError("rotation_schedule", "give five fields: minute, hour, day of month, month, day of week, such as 0 3 1 * *",
				"the value is not a cron expression")
		}
		previous := r.next(now)
		if previous.IsZero() {
			return fieldError("rotation_schedule", "give one that comes true", "there is no such time within five years")
		}
		for range scheduledRunsChecked {
			following := r.next(previous)
			if !following.IsZero() && following.Sub(previous) < minRotationPeriod {
				return fieldError("rotation_schedule", "give times at least an hour apart", "its times are less than an hour apart")
			}
			previous = following
		}
	}
	if r.window != 0 {
		if r.schedule == "" {
			return fieldError("rotation_window", "leave it out, or give a rotation_schedule", "it is for a rotation_schedule only")
		}
		if err := checkRange("rotation_window", r.window, time.Hour, maxRotationPeriod); err != nil {
			return err
		}
	}
	return nil
}

// isCron reports whether a schedule has the five fields and nothing else. The parser would also take a time zone before
// them ("TZ=Europe/Paris 0 3 * * *"), only to count in UTC all the same, and panics where no space follows it.
func isCron(schedule string) bool {
	if strings.Contains(schedule, "TZ=") {
		return false
	}
	_, err := vaultrotation.DefaultScheduler.Parse(schedule)
	return err == nil
}

// scheduleRotation sets when the next version is made, counted from now. A random delay keeps many keys from being
// rotated in the same minute.
func (k *signingKey) scheduleRotation(now time.Time) {
	k.NextRotationTime = k.rotationTimes().next(now)
	if !k.NextRotationTime.IsZero() {
		k.NextRotationTime = k.NextRotationTime.Add(rand.N(maxRotationDelay)).UTC()
	}
}

// rotationTooFar reports whether the next rotation is further away than it can be: a clock was ahead when it was set.
func (k *signingKey) rotationTooFar(now time.Time) bool {
	latest := k.rotationTimes().next(now)
	return !latest.IsZero() && k.NextRotationTime.After(latest.Add(maxRotationDelay))
}

// rotationDue reports whether the next version is to be made now (due), or should have been, while its window is over
// by now, so that the next time counts (missed).
func (k *signingKey) rotationDue(now time.Time) (due, missed bool) {
	if k.NextRotationTime.IsZero() || now.Before(k.NextRotationTime) {
		return false, false
	}
	missed = k.RotationWindow > 0 && now.After(k.NextRotationTime.Add(k.RotationWindow))
	return !missed, missed
}
