// A plugin for hosts written in Python.
package main

import (
	"flag"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"pyvider.test/interop/peer"
)

func main() {
	versions := flag.String("versions", "1", "the versions to serve")
	cookie := flag.String("cookie", "interop", "the cookie to expect")
	netrpc := flag.Bool("netrpc", false, "speak net/rpc, as plugins of old do")
	receive := flag.Int("receive", 0, "the largest message to take; grpc-go's own limit if 0")
	flag.Parse()

	logger := hclog.New(&hclog.LoggerOptions{
		Level: hclog.Trace, Output: os.Stderr, JSONFormat: true, Name: "interop",
	})
	plugins, err := peer.Versions(*versions, logger)
	if err != nil {
		logger.Error("the versions cannot be read", "error", err)
		os.Exit(2)
	}
	config := &plugin.ServeConfig{
		HandshakeConfig:  peer.Handshake(0, *cookie),
		VersionedPlugins: plugins,
		Logger:           logger,
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			if *receive > 0 {
				options = append(options, grpc.MaxRecvMsgSize(*receive))
			}
			return grpc.NewServer(options...)
		},
	}
	if *netrpc {
		config.GRPCServer = nil
	}
	plugin.Serve(config)
}
