package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// described asks the plugin what it serves, in both versions of reflection, and how that is.
func (s *session) described() (any, error) {
	conn := s.protocol.(*plugin.GRPCClient).Conn
	ctx, cancel := bounded()
	defer cancel()
	result := map[string]any{}
	for _, version := range []string{"v1", "v1alpha"} {
		names, err := services(ctx, conn, version)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", version, err)
		}
		result[version] = names
	}
	for _, name := range []string{"", plugin.GRPCServiceName} {
		request := &grpc_health_v1.HealthCheckRequest{Service: name}
		reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("health of %q: %w", name, err)
		}
		result["health of "+name] = reply.Status.String()
	}
	return result, nil
}

// services asks for the names of services. The messages of both versions are the same.
func services(ctx context.Context, conn *grpc.ClientConn, version string) ([]string, error) {
	method := "/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo"
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(ctx, both, method)
	if err != nil {
		return nil, err
	}
	err = stream.SendMsg(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	})
	if err != nil {
		return nil, err
	}
	var reply grpc_reflection_v1.ServerReflectionResponse
	if err := stream.RecvMsg(&reply); err != nil {
		return nil, err
	}
	var names []string
	for _, service := range reply.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	slices.Sort(names)
	return names, stream.CloseSend()
}
