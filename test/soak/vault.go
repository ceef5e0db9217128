// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"syscall"

	"vault-plugin-secrets-redox/internal/testvault"
)

const (
	pluginName = "vault-plugin-secrets-redox"
	mount      = "redox/"
)

// vault is a Vault server in dev mode, with its log and the plugin's at trace.
type vault struct {
	*testvault.Server
	plugin string // the binary's name
	uuid   string // of the mount, for sys/raw
}

// startVault starts the server, and mounts the plugin.
func startVault(ctx context.Context, set settings, directory string) (*vault, error) {
	server, err := testvault.Start(ctx, testvault.Options{
		Binary: set.vault, Plugins: filepath.Dir(set.plugin), Directory: directory, RootToken: "soak-root",
		Config: "raw_storage_endpoint = true\n", LogLevel: "trace",
	})
	if err != nil {
		return nil, err
	}
	v := &vault{Server: server, plugin: filepath.Base(set.plugin)}
	if err := v.mount(ctx, set.plugin); err != nil {
		v.Stop()
		return nil, err
	}
	return v, nil
}

func (v *vault) mount(ctx context.Context, plugin string) error {
	version, err := testvault.PluginVersion(plugin)
	if err != nil {
		return err
	}
	if err := v.Register(ctx, pluginName, v.plugin, version); err != nil {
		return err
	}
	if err := v.Mount(ctx, "redox", pluginName, version); err != nil {
		return err
	}
	mounted, err := v.Must(ctx, http.MethodGet, "sys/mounts/redox", nil)
	if err != nil {
		return err
	}
	v.uuid, _ = mounted.Data["uuid"].(string)
	return nil
}

// leases counts the leases of the leased role.
func (v *vault) leases(ctx context.Context) (int, error) {
	a, err := v.Do(ctx, "LIST", "sys/leases/lookup/"+mount+"token/leased", nil)
	if err != nil || a.Status == http.StatusNotFound {
		return 0, err
	}
	if a.Status != http.StatusOK {
		return 0, fmt.Errorf("the leases can't be listed: HTTP %d: %s", a.Status, a.Problem())
	}
	keys, _ := a.Data["keys"].([]any)
	return len(keys), nil
}

// killPlugin ends the plugin's processes of this server as a crash does.
func (v *vault) killPlugin() error {
	pids, err := v.Children(v.plugin)
	if err == nil && len(pids) == 0 {
		err = errors.New("no process of the plugin is found")
	}
	for _, pid := range pids {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	return err
}
