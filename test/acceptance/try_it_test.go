// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// TestTryIt runs docs/try-it.md as it is printed, in a Vault that knows nothing of the plugin, and counts its commands.
func TestTryIt(t *testing.T) {
	t.Parallel()
	blocks := documentedCommands(t, "try-it.md")
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks of commands", len(blocks))
	}
	commands := 0
	for _, block := range blocks {
		commands += strings.Count(block, "\n") - strings.Count(block, "\\\n")
	}
	if page := readFile(t, "../../docs/try-it.md"); commands != 9 || !strings.Contains(page, "Nine commands") {
		t.Errorf("the page has %d commands", commands)
	}

	directory := t.TempDir()
	plugins := filepath.Join(directory, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	server := &vaultServer{directory: directory, rootToken: rootToken}
	if err := server.start(testvault.Options{Plugins: plugins, RootToken: rootToken}); err != nil {
		t.Fatal(err)
	}
	server.stopAtEnd(t, "the server of "+t.Name())
	port, err := testvault.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	// The commands stay in the repository, but neither its .build nor a file of its own is touched.
	replacer := strings.NewReplacer(
		"scripts/build\n", "scripts/build "+directory+"/built\n",
		".build/vault-plugin-secrets-redox", directory+"/built",
		"/etc/vault.d/plugins/", plugins+"/"+pluginName,
		"public.jwk.json", directory+"/public.jwk.json",
		"-client-id", "-address "+address+" -client-id",
		"127.0.0.1:8765", address,
	)
	e := &engine{person: person{t, server, rootToken}, path: "redox"}
	e.bash("../..", replacer.Replace(blocks[0]))

	command := exec.Command("bash", "-c", replacer.Replace(blocks[1]))
	command.Dir = "../.."
	startProcess(t, "the local Redox", command)
	await(t, "the local Redox to listen", func() bool {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		return connection.Close() == nil
	})
	e.bash("../..", replacer.Replace(blocks[2]))
	if e.accessToken("token") == "" || e.data("read", "redox/token")["client_id"] != "my-client" {
		t.Error("the page's commands give no token")
	}
}
