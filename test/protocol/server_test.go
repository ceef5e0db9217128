// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package protocol

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	sdkplugin "github.com/hashicorp/vault/sdk/plugin"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"vault-plugin-secrets-redox/internal/leakcheck"
)

// server runs the plugin's process as Vault does, with one mount. Of what a plugin may ask it knows the storage and the
// oldest part of the system view; everything else it answers as gRPC does where a service or a method is not there. It is
// written on the protocol's messages, not on the SDK's client, which brings all services along.
type server struct {
	t           testing.TB
	connection  *connection
	multiplexed bool
	backend     pb.BackendClient
	storage     *logical.InmemStorage
	callbacks   chan *grpc.Server // for the plugin's calls
	log         *lockedBuffer
	said        *lockedBuffer // what was answered

	mu      sync.Mutex
	refused map[string]int // by method
}

// connection is what go-plugin makes of a started process.
type connection struct {
	broker *plugin.GRPCBroker
	conn   *grpc.ClientConn
}

// clientSide makes it.
type clientSide struct {
	plugin.NetRPCUnsupportedPlugin
	plugin.GRPCPlugin
}

func (clientSide) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &connection{broker, conn}, nil
}

// start runs the plugin, offers it one version of the protocol, and mounts it.
func start(t testing.TB, file string, version int) *server {
	t.Helper()
	s := &server{
		t: t, storage: &logical.InmemStorage{}, callbacks: make(chan *grpc.Server, 1), log: &lockedBuffer{}, said: &lockedBuffer{},
		refused: map[string]int{},
	}
	command := exec.Command(file)
	command.Env = []string{
		pluginutil.PluginMetadataModeEnv + "=false",
		pluginutil.PluginAutoMTLSEnv + "=true",
		pluginutil.PluginVaultVersionEnv + "=1.0.0",
	}
	process := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  sdkplugin.HandshakeConfig,
		VersionedPlugins: map[int]plugin.PluginSet{version: {sdkplugin.BackendPluginName: clientSide{}}},
		Cmd:              command,
		SkipHostEnv:      true,
		AutoMTLS:         true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		StartTimeout:     startTimeout,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: s.log}),
	})
	t.Cleanup(func() {
		process.Kill()
		s.searchForSecrets()
	})
	rpc, err := process.Client()
	if err != nil {
		t.Fatalf("the plugin does not start: %v\n%s", err, s.log)
	}
	if negotiated := process.NegotiatedVersion(); negotiated != version {
		t.Fatalf("version %d of the protocol was offered, %d is spoken", version, negotiated)
	}
	dispensed, err := rpc.Dispense(sdkplugin.BackendPluginName)
	if err != nil {
		t.Fatal(err)
	}
	s.connection = dispensed.(*connection)
	if s.multiplexed, err = pluginutil.MultiplexingSupported(s.ctx(), s.connection.conn, filepath.Base(file)); err != nil {
		t.Fatal(err)
	}
	s.backend = pb.NewBackendClient(s.connection.conn)
	s.setUp()
	return s
}

// startTimeout bounds how long anything may take, on a slow machine.
const startTimeout = time.Minute

// ctx is for a call of the plugin. Where one process serves several mounts, each call says which it means.
func (s *server) ctx() context.Context {
	if !s.multiplexed {
		return s.t.Context()
	}
	return metadata.AppendToOutgoingContext(s.t.Context(), pluginutil.MultiplexingCtxKey, "the mount")
}

// setUp makes the plugin's backend, and serves what it asks for.
func (s *server) setUp() {
	s.t.Helper()
	id := s.connection.broker.NextId()
	go s.connection.broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
		callbacks := grpc.NewServer(append(options, grpc.UnaryInterceptor(s.intercept), grpc.UnknownServiceHandler(s.unknown))...)
		pb.RegisterStorageServer(callbacks, &storageService{storage: s.storage})
		pb.RegisterSystemViewServer(callbacks, &systemService{})
		s.callbacks <- callbacks
		return callbacks
	})
	reply, err := s.backend.Setup(s.ctx(), &pb.SetupArgs{BrokerID: id, BackendUUID: "the mount"})
	if err != nil || reply.Err != "" {
		s.t.Fatalf("setup: %v %s", err, reply.GetErr())
	}
	initialized, err := s.backend.Initialize(s.ctx(), &pb.InitializeArgs{})
	if err != nil || initialized.Err != nil {
		s.t.Fatalf("initialize: %v %v", err, pb.ProtoErrToErr(initialized.GetErr()))
	}
}

// tearDown ends the mount, as a server does before it ends the process.
func (s *server) tearDown() {
	s.t.Helper()
	if _, err := s.backend.Cleanup(s.ctx(), &pb.Empty{}); err != nil {
		s.t.Errorf("cleanup: %v", err)
	}
	(<-s.callbacks).GracefulStop()
}

// intercept notes what is refused of the services that are there.
func (s *server) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	if status.Code(err) == codes.Unimplemented {
		s.noteRefused(info.FullMethod)
	}
	return answer, err
}

// unknown is called for the methods of services that are not there.
func (s *server) unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	s.noteRefused(method)
	return status.Errorf(codes.Unimplemented, "unknown service of %s", method)
}

func (s *server) noteRefused(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[method]++
}

// refusedMethods gives what was refused, and how often.
func (s *server) refusedMethods() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.refused)
}

// request does one request that has to succeed, with an existence check before a write, and gives the answer.
func (s *server) request(operation logical.Operation, path string, data map[string]any) *logical.Response {
	s.t.Helper()
	return s.send(&logical.Request{Operation: operation, Path: path, Data: data})
}

func (s *server) send(req *logical.Request) *logical.Response {
	s.t.Helper()
	req.ID, req.MountPoint = "a request", "redox/"
	message, err := pb.LogicalRequestToProtoRequest(req)
	if err != nil {
		s.t.Fatal(err)
	}
	what := fmt.Sprintf("%s %s", req.Operation, req.Path)
	if req.Operation == logical.UpdateOperation {
		existence, err := s.backend.HandleExistenceCheck(s.ctx(), &pb.HandleExistenceCheckArgs{Request: message})
		if err != nil || existence.Err != nil {
			s.t.Fatalf("%s: existence check: %v %v", what, err, pb.ProtoErrToErr(existence.GetErr()))
		}
		if existence.CheckFound && !existence.Exists {
			message.Operation = string(logical.CreateOperation)
		}
	}
	reply, err := s.backend.HandleRequest(s.ctx(), &pb.HandleRequestArgs{Request: message})
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	response, err := pb.ProtoResponseToLogicalResponse(reply.Response)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := pb.ProtoErrToErr(reply.Err); err != nil || response.IsError() {
		s.t.Fatalf("%s: %v, %v", what, err, response.Error())
	}
	if response != nil {
		shown := maps.Clone(response.Data)
		delete(shown, "access_token")
		delete(shown, "client_assertion")
		fmt.Fprintln(s.said, what, shown, response.Warnings)
	}
	return response
}

func (s *server) read(path string) map[string]any {
	s.t.Helper()
	response := s.request(logical.ReadOperation, path, nil)
	if response == nil {
		s.t.Fatalf("there is no %s", path)
	}
	return response.Data
}

func (s *server) write(path string, data map[string]any) map[string]any {
	s.t.Helper()
	response := s.request(logical.UpdateOperation, path, data)
	if response == nil {
		return nil
	}
	return response.Data
}

// await waits for the plugin's worker, which tells nobody when it has done something.
func (s *server) await(what string, reached func() bool) {
	s.t.Helper()
	deadline := time.After(startTimeout)
	for !reached() {
		select {
		case <-deadline:
			s.t.Fatalf("waited in vain for %s\n%s", what, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// complaints are the lines of the plugin's log that an operator would look into.
func (s *server) complaints() []string {
	return slices.DeleteFunc(strings.Split(s.log.String(), "\n"), func(line string) bool {
		return !strings.Contains(line, "[WARN]") && !strings.Contains(line, "[ERROR]")
	})
}

func (s *server) searchForSecrets() {
	for name, text := range map[string]string{"log": s.log.String(), "answers": s.said.String()} {
		if found := leakcheck.New().Scan([]byte(text)); len(found) > 0 {
			s.t.Errorf("the plugin's %s holds %v", name, found)
		}
	}
}

// systemService is what every server has known since plugins speak gRPC. All later methods are Unimplemented.
type systemService struct {
	pb.UnimplementedSystemViewServer
}

func (*systemService) DefaultLeaseTTL(context.Context, *pb.Empty) (*pb.TTLReply, error) {
	return &pb.TTLReply{TTL: int64(time.Hour)}, nil
}

func (*systemService) MaxLeaseTTL(context.Context, *pb.Empty) (*pb.TTLReply, error) {
	return &pb.TTLReply{TTL: int64(24 * time.Hour)}, nil
}

func (*systemService) Tainted(context.Context, *pb.Empty) (*pb.TaintedReply, error) {
	return &pb.TaintedReply{}, nil
}

func (*systemService) CachingDisabled(context.Context, *pb.Empty) (*pb.CachingDisabledReply, error) {
	return &pb.CachingDisabledReply{}, nil
}

func (*systemService) ReplicationState(context.Context, *pb.Empty) (*pb.ReplicationStateReply, error) {
	return &pb.ReplicationStateReply{State: int32(consts.ReplicationDRDisabled | consts.ReplicationPerformanceDisabled)}, nil
}

func (*systemService) MlockEnabled(context.Context, *pb.Empty) (*pb.MlockEnabledReply, error) {
	return &pb.MlockEnabledReply{}, nil
}

func (*systemService) LocalMount(context.Context, *pb.Empty) (*pb.LocalMountReply, error) {
	return &pb.LocalMountReply{}, nil
}

// storageService is the mount's storage.
type storageService struct {
	pb.UnimplementedStorageServer
	storage logical.Storage
}

func (s *storageService) List(ctx context.Context, args *pb.StorageListArgs) (*pb.StorageListReply, error) {
	keys, err := s.storage.List(ctx, args.Prefix)
	return &pb.StorageListReply{Keys: keys, Err: pb.ErrToString(err)}, nil
}

func (s *storageService) Get(ctx context.Context, args *pb.StorageGetArgs) (*pb.StorageGetReply, error) {
	reply := &pb.StorageGetReply{}
	entry, err := s.storage.Get(ctx, args.Key)
	if entry != nil {
		reply.Entry = pb.LogicalStorageEntryToProtoStorageEntry(entry)
	}
	reply.Err = pb.ErrToString(err)
	return reply, nil
}

func (s *storageService) Put(ctx context.Context, args *pb.StoragePutArgs) (*pb.StoragePutReply, error) {
	err := s.storage.Put(ctx, pb.ProtoStorageEntryToLogicalStorageEntry(args.Entry))
	return &pb.StoragePutReply{Err: pb.ErrToString(err)}, nil
}

func (s *storageService) Delete(ctx context.Context, args *pb.StorageDeleteArgs) (*pb.StorageDeleteReply, error) {
	return &pb.StorageDeleteReply{Err: pb.ErrToString(s.storage.Delete(ctx, args.Key))}, nil
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
