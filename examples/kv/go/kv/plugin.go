// Package kv is what the host and the plugin have agreed on.
package kv

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Name is what the plugin is dispensed by.
const Name = "kv"

// Handshake is what a host and its plugins have in common.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "BASIC_PLUGIN",
	MagicCookieValue: "hello",
}

// Plugin connects the service with go-plugin. A host leaves Service out.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Service KVServer
}

// GRPCServer is called in the plugin.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	RegisterKVServer(server, p.Service)
	return nil
}

// GRPCClient is called in the host.
func (p *Plugin) GRPCClient(
	_ context.Context, _ *plugin.GRPCBroker, connection *grpc.ClientConn,
) (any, error) {
	return NewKVClient(connection), nil
}
