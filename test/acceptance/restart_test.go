// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestRestart stops and starts a Vault server with storage on disk: keys, configuration and leases are still there,
// and the first token comes without any help.
func TestRestart(t *testing.T) {
	directory := t.TempDir()
	if err := os.Mkdir(filepath.Join(directory, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
plugin_directory = %q
disable_mlock = true
api_addr = "http://127.0.0.1:PORT"
cluster_addr = "http://127.0.0.1:CLUSTER_PORT"
storage "raft" {
  path = %q
  node_id = "one"
}
listener "tcp" {
  address = "127.0.0.1:PORT"
  cluster_address = "127.0.0.1:CLUSTER_PORT"
  tls_disable = true
}
`, filepath.Dir(pluginFile), filepath.Join(directory, "data"))
	server := &vaultServer{directory: directory}
	start := func() {
		t.Helper()
		if err := server.start(config); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() {
		server.stop()
		log, err := os.ReadFile(server.logFile())
		if err != nil {
			t.Fatal(err)
		}
		output.record("the server's log", string(log))
	})

	var initialized struct {
		Keys  []string `json:"unseal_keys_b64"`
		Token string   `json:"root_token"`
	}
	operator := person{t, server, ""}
	text := operator.must("operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json")
	if err := json.Unmarshal([]byte(text), &initialized); err != nil {
		t.Fatal(err)
	}
	unseal := func() {
		t.Helper()
		operator.must("operator", "unseal", initialized.Keys[0])
		if err := server.awaitActive(initialized.Token); err != nil {
			t.Fatal(err)
		}
	}
	unseal()
	server.rootToken = initialized.Token
	if err := server.registerPlugin(); err != nil {
		t.Fatal(err)
	}

	redox, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redox.Close() })
	e := &engine{person: person{t, server, initialized.Token}, path: "redox", redox: redox}
	e.must("secrets", "enable", "-path=redox", pluginName)
	e.must("write", "redox/keys/main", "algorithm=RS384", "rsa_bits=2048")
	e.register("client-1", "main")
	e.must("write", "redox/config", "client_id=client-1", "key=main", "base_url="+redox.URL)
	e.must("write", "redox/roles/counted", "leased=true")
	lease := e.secret("read", "redox/token/counted").LeaseID
	before := e.must("read", "redox/keys/main")

	server.stop()
	start()
	unseal()
	if after := e.must("read", "redox/keys/main"); after != before {
		t.Errorf("the key has changed:\n%s\n%s", before, after)
	}
	if e.opens(e.accessToken("token")) != http.StatusOK {
		t.Error("there is no token after the restart")
	}
	e.must("lease", "revoke", "-sync", lease)
	if leases := e.try("list", "sys/leases/lookup/redox/token/counted"); !strings.Contains(leases.stderr, "No value found") {
		t.Errorf("the lease is still there: %s%s", leases.stdout, leases.stderr)
	}
	e.must("operator", "seal")
	unseal()
	e.accessToken("token/counted")
}
