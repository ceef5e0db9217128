// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package world

// Scenarios are small each, so that each can be explored deep.
var Scenarios = []*Scenario{
	{
		Name: "one client with two roles, one of them mistyped", Clients: 1, Versions: 3,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 0, ReadOn: "A", Mistyped: true}},
		Ops: []Kind{Add, Remove, Break, Mend, Token, Pass, Rotate, Activate,
			Abandon, RetireAll, Hour, Day},
	},
	{
		Name: "one client with two roles that come and go, and the configuration's", Clients: 2, Versions: 2,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A", Config: true}, {Client: 1, ReadOn: "A"}, {Client: 1, Later: true}},
		Ops: []Kind{Add, Token, Pass, Rotate, Activate, RetireAll, WriteRole,
			DeleteRole, Disable, Enable, Day},
	},
	{
		Name: "two clients, one of them for assertions only", Clients: 2, Versions: 3,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1}},
		Ops: []Kind{Add, Remove, Token, Assertion, Pass, Rotate, Activate,
			Abandon, RetireAll, Day},
	},
	{
		Name: "two clients, and their tokens", Clients: 2, Versions: 3, Only: []Check{TokenKept},
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "A"}},
		Ops: []Kind{Add, Remove, Token, Pass, Rotate, Activate, Abandon,
			RetireAll, Day},
	},
	{
		Name: "outages and a broken client", Clients: 2, Versions: 2,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "A"}},
		Ops: []Kind{Add, Break, Mend, Outage, OutageEnds, Token, Pass, Rotate,
			Activate, RetireAll, Hour, Day, Restart},
	},
	{
		Name: "a client that is read on node B only", Nodes: 2, Clients: 2, Versions: 3,
		Roles:  []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "B"}},
		Before: []Op{{Kind: Token}, {Kind: Token, Role: 1, Node: 1}, {Kind: Pass}},
		Ops: []Kind{Add, Remove, Token, Pass, Rotate, Activate, Abandon,
			RetireAll, Day, Restart},
	},
	{
		Name: "one client that is read on both nodes", Nodes: 2, Clients: 1, Versions: 3,
		Roles: []RoleSetup{{Client: 0, ReadOn: "AB"}, {Client: 0}},
		Ops: []Kind{Add, Remove, Token, Pass, Rotate, Activate, Abandon,
			RetireAll, Day, Restart},
	},
	{
		Name: "another token URL", Clients: 1, Versions: 2,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}},
		Ops: []Kind{Add, Remove, Token, Pass, Rotate, Activate, Abandon,
			RetireAll, Repoint, Day},
	},
	{
		Name: "roles come and go, and become unreadable", Clients: 2, Versions: 2,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "A", Later: true}},
		Ops: []Kind{Add, Token, Pass, Rotate, Activate, RetireAll, WriteRole,
			DeleteRole, Disable, Enable, Spoil, Day},
	},
	{
		Name: "a role is made and used in the middle of a pass", Clients: 2, Versions: 2,
		Roles:  []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "A", Later: true}},
		Before: []Op{{Kind: Token}},
		During: []Op{{Kind: WriteRole, Role: 1}, {Kind: Token, Role: 1}},
		Ops:    []Kind{Add, Token, Pass, Rotate, Activate, Day},
	},
	{
		Name: "a role is deleted in the middle of a pass", Clients: 2, Versions: 2,
		Roles:  []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "A"}},
		During: []Op{{Kind: DeleteRole, Role: 1}},
		Ops:    []Kind{Add, Token, Pass, Rotate, Activate, WriteRole, Day},
	},
	{
		Name: "force", Clients: 2, Versions: 3,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1}},
		Ops: []Kind{Add, Token, Pass, Rotate, Activate, Force, RetireAll,
			RetireHard, DestroyNow, Day},
	},
	{
		Name: "keys that are imported, and again", Clients: 1, Versions: 3,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}},
		Ops: []Kind{Add, Remove, Token, Pass, Import, Activate, Abandon,
			RetireAll, DestroyNow, Day},
	},
	{
		Name: "crashes between any two writes", Clients: 2, Versions: 2, Crashes: true,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}, {Client: 1, ReadOn: "A"}},
		Ops: []Kind{Add, Remove, Token, Pass, Rotate, Activate, Abandon,
			RetireAll, DeleteRole, WriteRole, Disable, Enable, Day},
	},
	{
		Name: "a server with other words, and a clock that is set back", Clients: 1, Versions: 2, OtherWords: true,
		Roles: []RoleSetup{{Client: 0, ReadOn: "A"}},
		Ops: []Kind{Add, Remove, Token, Pass, Rotate, Activate, Abandon,
			RetireAll, Hour, Day, SetBack},
	},
}
