// A plugin for hosts written in Python.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"os"
	"os/signal"
	"syscall"

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
	own := flag.String("own", "", "a file with a certificate and its key, instead of AutoMTLS")
	authority := flag.String("authority", "", "a file with who signs such certificates")
	debug := flag.Bool("debug", false, "say on stdout how to attach, and serve until SIGTERM")
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
	if *own != "" {
		config.TLSProvider = func() (*tls.Config, error) { return peer.TLS(*own, *authority) }
	}
	if *netrpc {
		config.GRPCServer = nil
	}
	if *debug {
		serveForDebugging(config)
		return
	}
	plugin.Serve(config)
}

// serveForDebugging serves hosts that did not start this program, as a provider of Terraform's does
// for who debugs it.
func serveForDebugging(config *plugin.ServeConfig) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	records := make(chan *plugin.ReattachConfig)
	closed := make(chan struct{})
	config.Test = &plugin.ServeTestConfig{
		Context: ctx, ReattachConfigCh: records, CloseCh: closed,
	}
	go plugin.Serve(config)
	record := <-records
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"Protocol":        record.Protocol,
		"ProtocolVersion": record.ProtocolVersion,
		"Pid":             record.Pid,
		"Test":            record.Test,
		"Addr": map[string]string{
			"Network": record.Addr.Network(),
			"String":  record.Addr.String(),
		},
	})
	if err != nil {
		panic(err)
	}
	<-closed
}
