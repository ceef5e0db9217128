// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// operations is a Vault with the engine at redox/, and the page whose commands are run there.
type operations struct {
	*engine
	node      *raftNode
	unsealKey string
	page      *sections
	directory string
	auditFile string
}

// TestOperationsDocumentation runs every block of commands of docs/operations.md, and looks at what the page says of it. The
// parts share a Vault, as an operator has one, and stand in the order of the page.
func TestOperationsDocumentation(t *testing.T) {
	verifyOnly(t, "a minute of restarts and reloads for docs/operations.md")
	node := newRaftNode(t, "one")
	o := &operations{node: node, unsealKey: node.initialize(), directory: t.TempDir()}
	o.engine = engineAt(node)
	o.page = readSections(t, "operations.md")
	o.auditFile = filepath.Join(o.directory, "audit.log")
	o.must("write", "redox/roles/team-a", "scope=a")
	for _, part := range []func(){
		o.proxy, o.upgrade, o.crash, o.seal, o.logLevel, o.quota, o.readers, o.look, o.lost, o.scripts, o.move, o.highAvailability, o.disable,
	} {
		part()
	}
	o.page.checkAllTaken()
}

// here puts this machine's directories in place of the ones printed.
func (o *operations) here(block string) string {
	return strings.NewReplacer("/etc/vault.d/plugins", filepath.Dir(pluginFile), "/var/log/vault", o.directory).Replace(block)
}

// printed runs one block of a section, and gives what it printed.
func (o *operations) printed(block string) string {
	o.t.Helper()
	o.bash(o.directory, "(\n"+o.here(block)+"\n) >printed")
	text, err := os.ReadFile(filepath.Join(o.directory, "printed"))
	if err != nil {
		o.t.Fatal(err)
	}
	output.record("bash", string(text))
	return string(text)
}

// works fails when readers get no token.
func (o *operations) works(when string) {
	o.t.Helper()
	if o.opens(o.accessToken("token/team-a")) != http.StatusOK {
		o.t.Errorf("there is no token %s", when)
	}
}

// proxy shows that the plugin uses the proxy of its entry in the catalog.
func (o *operations) proxy() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	defer listener.Close()
	asked := make(chan string, 100)
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.Method + " " + r.Host
			w.WriteHeader(http.StatusForbidden)
		}))
	}()
	block := o.page.take("What it needs of Vault")[0]
	o.bash(o.directory, strings.ReplaceAll(o.here(block), "http://proxy.example:3128", "http://"+listener.Addr().String()))
	o.must("write", "redox/config", "base_url=https://redox.example")
	if check := o.data("write", "-f", "redox/check"); check["ok"] != false {
		o.t.Errorf("the check says %v", check)
	}
	select {
	case got := <-asked:
		if got != "CONNECT redox.example:443" {
			o.t.Errorf("the proxy was asked for %q", got)
		}
	default: // the check is over
		o.t.Error("the proxy was not asked")
	}
	if err := o.node.registerPlugin(); err != nil {
		o.t.Fatal(err)
	}
	o.must("plugin", "reload", "-plugin="+pluginName)
	o.must("write", "redox/config", "base_url="+o.redox.URL)
	o.works("without the proxy")
}

func (o *operations) upgrade() {
	const next = "v1.1.0"
	build := exec.Command("../../scripts/build", pluginFile+"-"+next)
	build.Env = append(os.Environ(), "VERSION="+next)
	if text, err := build.CombinedOutput(); err != nil {
		o.t.Fatalf("building the plugin failed: %v\n%s", err, text)
	}
	before := o.accessToken("token/team-a")
	blocks := readSections(o.t, "install.md").take("Upgrade and go back") // of another page
	for i, want := range []string{next, pluginVersion} {
		printed := o.printed(blocks[i])
		if version := o.data("read", "redox/info")["version"]; version != want || !strings.Contains(printed, want) {
			o.t.Errorf("the version is %v, not %s:\n%s", version, want, printed)
		}
		if o.opens(before) != http.StatusOK || o.accessToken("token/team-a") == before {
			o.t.Errorf("with %s the token from before does not work any more, or is still the one that is read", want)
		}
	}
	o.must("plugin", "deregister", "-version="+next, "secret", pluginName)
}

// crash kills the process of the plugin.
func (o *operations) crash() {
	before := o.accessToken("token/team-a")
	pids, err := exec.Command("pgrep", "-P", strconv.Itoa(o.node.PID())).Output()
	fields := strings.Fields(string(pids))
	if err != nil || len(fields) == 0 {
		o.t.Fatalf("the plugin's process is not found: %v", err)
	}
	for _, field := range fields {
		pid, err := strconv.Atoi(field)
		if err != nil {
			o.t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			o.t.Fatal(err)
		}
	}
	await(o.t, "Vault to notice", func() bool { return o.logged("plugin process exited") })
	if after := o.accessToken("token/team-a"); after == before ||
		o.opens(after) != http.StatusOK || o.opens(before) != http.StatusOK {
		o.t.Error("after a crash the token is the same, or does not work")
	}
}

func (o *operations) logged(text string) bool {
	o.t.Helper()
	log, err := os.ReadFile(o.node.LogFile())
	if err != nil {
		o.t.Fatal(err)
	}
	return strings.Contains(string(log), text)
}

func (o *operations) seal() {
	o.must("operator", "seal")
	if response, _ := o.http(http.MethodGet, "redox/jwks/main", ""); response.StatusCode != http.StatusServiceUnavailable {
		o.t.Errorf("a sealed Vault answers %d for the JWKS", response.StatusCode)
	}
	o.node.unseal(o.unsealKey)
	o.works("after unsealing")
}

// logLevel finds what is only logged at debug: that a token was minted. The server's own level is trace, so the level is
// raised first.
func (o *operations) logLevel() {
	mints := func() int {
		o.t.Helper()
		o.must("write", "-f", "redox/check") // the log has what came before, once this is answered
		log, err := os.ReadFile(o.node.LogFile())
		if err != nil {
			o.t.Fatal(err)
		}
		return strings.Count(string(log), "minted a token")
	}
	blocks := o.page.take("Log level")
	o.must("write", "sys/loggers", "level=info")
	o.must("plugin", "reload", "-plugin="+pluginName)
	quiet := mints()
	o.works("with level=info")
	if mints() != quiet {
		o.t.Error("a mint is logged at info")
	}
	for _, block := range blocks {
		before := mints()
		o.bash(o.directory, block)
		o.works("with another log level")
		await(o.t, "the mint to be logged", func() bool { return mints() == before+1 })
	}
}

// quota reads back what the page sets, and then tries it with fewer requests.
func (o *operations) quota() {
	o.page.run(o.engine, o.directory, "Limit who asks how often")
	quota := o.data("read", "sys/quotas/rate-limit/redox-token")
	if quota["path"] != "redox/token*" || fmt.Sprint(quota["rate"]) != "100" {
		o.t.Errorf("the quota is %v", quota)
	}
	o.must("write", "sys/quotas/rate-limit/redox-token", "path=redox/token*", "rate=1", "interval=1h")
	tokenOverHTTP(o.person, "redox/token/team-a")
	for path, want := range map[string]int{"redox/token/team-a": http.StatusTooManyRequests, "redox/jwks/main": http.StatusOK} {
		if response, _ := o.http(http.MethodGet, path, ""); response.StatusCode != want {
			o.t.Errorf("%s is answered with %d", path, response.StatusCode)
		}
	}
	o.must("delete", "sys/quotas/rate-limit/redox-token")
}

// readers has two people read tokens, and finds them in the audit log.
func (o *operations) readers() {
	blocks := o.page.take("Who read this token")
	if len(blocks) != 4 {
		o.t.Fatalf("there are %d blocks", len(blocks))
	}
	o.bash(o.directory, o.here(blocks[0]))
	o.must("auth", "enable", "userpass")
	people := map[string]person{}
	o.mustWith(`path "redox/token*" { capabilities = ["read"] }`, "policy", "write", "reader", "-")
	for _, name := range []string{"alice", "bob"} {
		o.must("write", "auth/userpass/users/"+name, "password=acceptance-"+name, "token_policies=reader")
		token := strings.TrimSpace(o.must("write", "-field=token", "auth/userpass/login/"+name, "password=acceptance-"+name))
		people[name] = person{o.t, o.vault, token}
	}
	misused := strings.TrimSpace(people["alice"].must("read", "-field=access_token", "redox/token/team-a"))
	people["bob"].must("read", "-field=access_token", "redox/token")
	writeFile(o.t, filepath.Join(o.directory, "token.txt"), misused+"\n")

	found := o.printed(blocks[1])
	for _, want := range []string{`"display_name":"userpass-alice"`, `"entity_id":"`, `"path":"redox/token/team-a"`,
		`"remote_address":"127.0.0.1"`, `"time":"`} {
		if strings.Count(found, want) != 1 {
			o.t.Errorf("who read the token is not shown with %s:\n%s", want, found)
		}
	}
	if strings.Contains(found, "bob") || strings.Contains(found, "audit-hash") {
		o.t.Errorf("somebody else is shown:\n%s", found)
	}

	// A wrapped token is found where it was unwrapped.
	wrapped := strings.TrimSpace(people["bob"].must("read", "-wrap-ttl=5m", "-field=wrapping_token", "redox/token/team-a"))
	person{o.t, o.vault, wrapped}.must("unwrap", "-field=access_token")
	if found := o.printed(blocks[1]); !strings.Contains(found, `"path":"sys/wrapping/unwrap"`) || strings.Contains(found, "bob") {
		o.t.Errorf("of the unwrapped token is shown:\n%s", found)
	}

	// bob's is the record of the wrapped answer.
	if all := o.printed(blocks[2]); strings.Count(all, "userpass-alice") != 1 || strings.Count(all, "userpass-bob") != 1 {
		o.t.Errorf("the reads of the role are:\n%s", all)
	}

	kid := fmt.Sprint(o.data("read", "redox/keys/main")["kid"])
	inAudit := func() bool {
		log, err := os.ReadFile(o.auditFile)
		if err != nil {
			o.t.Fatal(err)
		}
		return strings.Contains(string(log), `"kid":"`+kid+`"`) && strings.Contains(string(log), `"client_id":"client-1"`)
	}
	if inAudit() {
		o.t.Error("the audit log has the kid before it was told to")
	}
	o.bash(o.directory, blocks[3])
	o.works("with fields of the audit log in clear")
	if !inAudit() {
		o.t.Error("the audit log has not the kid in clear")
	}
	o.must("audit", "disable", "file")
	o.bash(o.directory, o.here(blocks[0]))
	log, err := os.ReadFile(o.auditFile)
	if err != nil {
		o.t.Fatal(err)
	}
	output.record("the audit log of node one", string(log))
	o.bash(o.directory, "rm audit.log && kill -HUP "+strconv.Itoa(o.node.PID())) // the device begins a new file
	o.works("with the audit device enabled again")
}

// look runs what shows all roles and keys that need attention.
func (o *operations) look() {
	block := o.page.take("Day two")[0]
	if printed := o.printed(block); strings.TrimSpace(printed) != "" {
		o.t.Errorf("all is well, but this is printed:\n%s", printed)
	}
	o.must("write", "redox/roles/wrong", "client_id=nobody")
	o.must("write", "-f", "redox/keys/main/rotate")
	printed := o.printed(block)
	if !strings.Contains(printed, "role wrong:") || !strings.Contains(printed, "key main: Add pending_public_jwk") ||
		strings.Contains(printed, "team-a") {
		o.t.Errorf("what needs attention is said to be:\n%s", printed)
	}
	o.must("delete", "redox/roles/wrong")
}

// lost shows what a new node needs.
func (o *operations) lost() {
	if printed := o.printed(o.page.take("A node is lost")[0]); !strings.Contains(printed, checksum(o.t, pluginFile)) || !strings.Contains(printed, pluginName) {
		o.t.Errorf("of the plugin is shown:\n%s", printed)
	}
}

// scripts goes by what a check has found.
func (o *operations) scripts() {
	block := o.page.take("In scripts")[0]
	o.bash(o.directory, block)
	o.must("write", "redox/config", "client_id=mistyped")
	o.bash(o.directory, "! "+block)
	o.must("write", "redox/config", "client_id=client-1")
}

// move moves the mount while a rotation is under way, and goes on with it.
func (o *operations) move() {
	o.must("write", "redox/roles/counted", "leased=true")
	lease := o.secret("read", "redox/token/counted").LeaseID
	token := o.accessToken("token/team-a")
	minted := o.redox.Counters().Token.Issued
	o.page.run(o.engine, o.directory, "Move the mount")
	o.path = "redox-eu"
	o.works("after the move")
	if o.accessToken("token/team-a") != token || o.redox.Counters().Token.Issued != minted {
		o.t.Error("the move has cost the tokens")
	}
	o.refused(http.StatusBadRequest, "lease", "lookup", lease)
	if o.opens(token) != http.StatusOK {
		o.t.Error("a token from before the move does not work")
	}
	if response, _ := o.http(http.MethodGet, "redox/jwks/main", ""); response.StatusCode == http.StatusOK {
		o.t.Error("the JWKS is still at its old URL")
	}
	o.replaceAtRedox("")
	if active := o.data("write", "-f", o.at("keys/main/activate")); active["next_step"] != "" {
		o.t.Errorf("the rotation does not go on: %v", active["next_step"])
	}
	o.node.learnKeys()
	o.must("secrets", "move", "redox-eu/", "redox/")
	o.path = "redox"
	o.works("after moving back")
}

// highAvailability adds a standby, asks it, and makes it the active node.
func (o *operations) highAvailability() {
	standby := newRaftNode(o.t, "two")
	standby.rootToken = o.node.rootToken
	standby.operator().must("operator", "raft", "join", o.node.address)
	standby.operator().must("operator", "unseal", o.unsealKey)
	awaitVoters(o.t, o.node, 2)
	token := o.accessToken("token/team-a")
	atStandby := *o.engine
	atStandby.person = standby.operator()
	await(o.t, "the standby to answer", func() bool { return atStandby.try("token", "lookup").code == 0 })
	if same := atStandby.accessToken("token/team-a") == token; same == host.StandbysRead() {
		o.t.Errorf("the standby gives the active node's token: %v", same)
	}
	if response, _ := atStandby.http(http.MethodGet, "redox/jwks/main", ""); response.StatusCode != http.StatusOK {
		o.t.Errorf("the standby answers %d for the JWKS", response.StatusCode)
	}
	o.page.run(o.engine, o.directory, "High availability")
	awaitLeader(o.t, []*raftNode{standby})
	o.person = standby.operator()
	if err := standby.awaitActive(standby.rootToken); err != nil {
		o.t.Fatal(err)
	}
	if after := o.accessToken("token/team-a"); after == token || o.opens(after) != http.StatusOK || o.opens(token) != http.StatusOK {
		o.t.Error("the new active node has the token of the one before, or it does not work, or the old one does not")
	}
}

func (o *operations) disable() {
	o.page.run(o.engine, o.directory, "Take it away")
	o.mount("redox")
	if left := o.try("list", "redox/keys"); left.code == 0 {
		o.t.Errorf("keys outlive their mount: %s", left.stdout)
	}
}

// sections are the blocks of commands of a page in docs, by the heading they stand under. Each is to be taken by a test.
type sections struct {
	t    testing.TB
	page string
	left map[string][]string
}

func readSections(t testing.TB, page string) *sections {
	t.Helper()
	s := &sections{t: t, page: page, left: map[string][]string{}}
	file, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	rest, heading := string(file), ""
	for _, block := range documentedCommands(t, page) {
		before, after, found := strings.Cut(rest, block)
		if !found {
			t.Fatalf("%s has not, in this order:\n%s", page, block)
		}
		for line := range strings.Lines(before) {
			if strings.HasPrefix(line, "## ") || strings.HasPrefix(line, "### ") {
				heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
			}
		}
		s.left[heading] = append(s.left[heading], block)
		rest = after
	}
	return s
}

// take gives the blocks of a section, which has to have some.
func (s *sections) take(heading string) []string {
	s.t.Helper()
	blocks := s.left[heading]
	if len(blocks) == 0 {
		s.t.Fatalf("%s has no commands, or none left, under %q", s.page, heading)
	}
	delete(s.left, heading)
	return blocks
}

// run runs the blocks of a section as they are printed.
func (s *sections) run(e *engine, directory, heading string) {
	s.t.Helper()
	for _, block := range s.take(heading) {
		e.bash(directory, block)
	}
}

// checkAllTaken fails when commands of the page were not tried.
func (s *sections) checkAllTaken() {
	s.t.Helper()
	for heading, blocks := range s.left {
		s.t.Errorf("%s: not tried, under %q:\n%s", s.page, heading, strings.Join(blocks, "\n"))
	}
}
