// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testvault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// Options say what server to start.
type Options struct {
	Binary    string // of Vault or OpenBao
	Plugins   string // folder with the binaries of plugins
	Directory string // of the server alone: its home, configuration, log and data
	Node      string // its name in a cluster, with storage on disk; none: dev mode, unsealed and all in memory
	RootToken string // in dev mode
	Config    string // what its configuration has beyond the necessary
	LogLevel  string // Vault's default if empty
	// Patience multiplies how long nodes of a cluster wait for each other before they elect another leader; 0 for 1. On a
	// machine that is busy with other tests, more keeps a leader that is merely slow.
	Patience int
}

// Server is a Vault server.
type Server struct {
	*Process
	Host    Host
	Address string // http://127.0.0.1:port
	Token   string // root's, for requests
	options Options
}

// Start starts a server and waits until it answers: in dev mode until it works, else as it is, most likely sealed.
func Start(ctx context.Context, o Options) (*Server, error) {
	if err := os.MkdirAll(filepath.Join(o.Directory, "data"), 0o700); err != nil {
		return nil, err
	}
	host, err := Inspect(o.Binary)
	if err != nil {
		return nil, err
	}
	s := &Server{Host: host, Token: o.RootToken, options: o}
	err = errPortTaken
	for tries := 0; tries < 5 && errors.Is(err, errPortTaken); tries++ {
		if err = s.configure(); err == nil {
			err = s.Restart(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// errPortTaken is what may happen to a port between its choice and its use.
var errPortTaken = errors.New("another process took the port")

// Restart starts the process of a server that has ended, at the address that it had before.
func (s *Server) Restart(ctx context.Context) error {
	arguments := []string{"server", "-config=" + s.configFile()}
	if s.options.LogLevel != "" {
		arguments = append(arguments, "-log-level="+s.options.LogLevel)
	}
	dev := s.options.Node == ""
	if dev {
		arguments = append(arguments, "-dev", "-dev-no-store-token", "-dev-root-token-id="+s.options.RootToken,
			"-dev-listen-address="+s.listenAddress())
	}
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	command := exec.Command(s.Host.Binary, arguments...)
	command.Env = []string{"HOME=" + s.options.Directory, "PATH=" + os.Getenv("PATH"), "NO_COLOR=1"}
	command.Stdout, command.Stderr = log, log
	process, err := StartProcess(command)
	if err != nil {
		return err
	}
	s.Process = process
	err = s.Await(ctx, func(ctx context.Context) bool {
		a, err := s.Do(ctx, http.MethodGet, "auth/token/lookup-self", nil)
		return err == nil && (a.Status == http.StatusOK || !dev)
	})
	if err == nil {
		return nil
	}
	s.Stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text, _ := os.ReadFile(s.LogFile())
	text = text[min(len(text), int(info.Size())):]
	if bytes.Contains(text, []byte("address already in use")) {
		return errPortTaken
	}
	return fmt.Errorf("the Vault server does not run: %w; the end of its log:\n%s", err, text[max(0, len(text)-4000):])
}

// configure chooses the server's ports and writes its configuration.
func (s *Server) configure() error {
	port, err := FreePort()
	if err != nil {
		return err
	}
	s.Address = fmt.Sprintf("http://127.0.0.1:%d", port)
	text := fmt.Sprintf("plugin_directory = %q\n", s.options.Plugins) + s.Host.config() + s.options.Config
	if s.options.Node != "" {
		clusterPort, err := FreePort()
		if err != nil {
			return err
		}
		text += fmt.Sprintf(`
disable_mlock = true
api_addr = %[1]q
cluster_addr = "http://127.0.0.1:%[2]d"
storage "raft" {
  path = %[3]q
  node_id = %[4]q
  performance_multiplier = %[6]d
}
listener "tcp" {
  address = %[5]q
  cluster_address = "127.0.0.1:%[2]d"
  tls_disable = true
}
`, s.Address, clusterPort, filepath.Join(s.options.Directory, "data"), s.options.Node, s.listenAddress(), max(s.options.Patience, 1))
	}
	return os.WriteFile(s.configFile(), []byte(text), 0o600)
}

// LogFile is where the server's log is, with that of its plugins.
func (s *Server) LogFile() string { return filepath.Join(s.options.Directory, "vault.log") }

func (s *Server) configFile() string { return filepath.Join(s.options.Directory, "config.hcl") }

func (s *Server) listenAddress() string { return s.Address[len("http://"):] }

// FreePort gives a port that nothing listens at now.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
