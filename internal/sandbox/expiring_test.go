// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"fmt"
	"testing"
	"time"
)

func TestExpiring(t *testing.T) {
	start := time.Unix(0, 0)
	e := newExpiring[int]()
	e.max = 3
	for i := range 3 {
		if !e.add(fmt.Sprint(i), i, start, start.Add(time.Duration(10-i))) {
			t.Fatalf("%d is not added", i)
		}
	}
	if e.add("1", 9, start, start.Add(100)) {
		t.Error("a name is added twice")
	}
	if v, ok := e.get("1", start); !ok || v != 1 {
		t.Errorf("got %d %v", v, ok)
	}
	// Full: what expires first, 2, goes.
	if !e.add("3", 3, start, start.Add(20)) {
		t.Error("not added when full")
	}
	if _, ok := e.get("2", start); ok || len(e.entries) != 3 {
		t.Errorf("%d entries, the soonest is there: %v", len(e.entries), ok)
	}
	if _, ok := e.get("1", start.Add(9)); ok {
		t.Error("an entry outlives its time")
	}
	// Adding forgets all that expired.
	if !e.add("1", 5, start.Add(15), start.Add(30)) || len(e.entries) != 2 || len(e.soonest) != 2 {
		t.Errorf("%d entries", len(e.entries))
	}
}
