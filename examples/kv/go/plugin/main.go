// A plugin that keeps values in files of the folder that it is run in.
package main

import (
	"context"
	"os"
	"regexp"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pyvider.example/kv/kv"
)

type store struct {
	kv.UnimplementedKVServer
}

func (store) Get(_ context.Context, request *kv.GetRequest) (*kv.GetResponse, error) {
	file, err := fileOf(request.Key)
	if err != nil {
		return nil, err
	}
	value, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil, status.Errorf(codes.NotFound, "there is no %q", request.Key)
	}
	return &kv.GetResponse{Value: value}, err
}

func (store) Put(_ context.Context, request *kv.PutRequest) (*kv.Empty, error) {
	file, err := fileOf(request.Key)
	if err != nil {
		return nil, err
	}
	return &kv.Empty{}, os.WriteFile(file, request.Value, 0o600)
}

var keys = regexp.MustCompile(`^\w+$`)

func fileOf(key string) (string, error) {
	if !keys.MatchString(key) {
		return "", status.Errorf(codes.InvalidArgument, "%q cannot be a key", key)
	}
	return "kv_" + key, nil
}

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: kv.Handshake,
		Plugins:         plugin.PluginSet{kv.Name: &kv.Plugin{Service: store{}}},
		GRPCServer:      plugin.DefaultGRPCServer,
	})
}
