// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
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

// TestReadmeQuickStart types the commands of README's quick start, and compares what it shows with what comes out: … stands for
// anything, a time for another time, a number for another number.
func TestReadmeQuickStart(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	e.must("write", e.at("config"), "base_url="+e.redox.URL) // the local Redox in place of the real one
	here := strings.NewReplacer("redox/", e.path+"/", "YOUR-CLIENT-ID", "client-1")
	blocks := regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(readFile(t, "../../README.md"), -1)
	compared := 0
	for i, block := range blocks {
		for _, command := range regexp.MustCompile(`(?m)^\$ `).Split(block[1], -1)[1:] {
			typed, shown, _ := strings.Cut(here.Replace(command), "\n")
			printed := e.must(strings.Fields(typed)[1:]...)
			if strings.TrimSpace(shown) == "" {
				continue
			}
			compared++
			pattern := regexp.QuoteMeta(strings.TrimSpace(shown))
			for _, masked := range [][2]string{{`\d{4}-\d\d-\d\dT[\d:]+Z`, `\S+`}, {`\d+m\d+s`, `\S+`}, {`\d{3}`, `\d{3}`}, {"…", `.+`}} {
				pattern = regexp.MustCompile(masked[0]).ReplaceAllLiteralString(pattern, masked[1])
			}
			if !regexp.MustCompile(`^` + pattern + `\s*$`).MatchString(printed) {
				t.Errorf("%s\nprints\n%s\nREADME has\n%s", typed, printed, shown)
			}
		}
		if i == 0 {
			e.register("client-1", "main")
		}
	}
	if compared < 3 {
		t.Errorf("only %d outputs were compared", compared)
	}
}
