// Package peer is the service that the programs here serve and call, as a go-plugin plugin.
package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "pyvider.test/interop/proto"
)

// Name is what the plugin is dispensed as.
const Name = "peer"

// AdderName is what the other service is dispensed as.
const AdderName = "adder"

// Handshake returns what both sides have to agree on, for one cookie.
func Handshake(version uint, cookie string) plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  version,
		MagicCookieKey:   "INTEROP_COOKIE",
		MagicCookieValue: cookie,
	}
}

// Versions reads "1,2" into plugins by version.
func Versions(text string, logger hclog.Logger) (map[int]plugin.PluginSet, error) {
	versions := map[int]plugin.PluginSet{}
	for _, word := range strings.Split(text, ",") {
		version, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		versions[version] = plugin.PluginSet{
			Name:      &Plugin{Version: version, Logger: logger},
			AdderName: &AdderPlugin{},
		}
	}
	return versions, nil
}

// Plugin joins the service to go-plugin.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Version int
	Logger  hclog.Logger
}

// Connection is for a host that makes its clients itself: it dispenses the connection.
type Connection struct {
	plugin.NetRPCUnsupportedPlugin
}

// GRPCServer is what plugins are asked for.
func (Connection) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is a host")
}

// GRPCClient returns the connection.
func (Connection) GRPCClient(
	_ context.Context, _ *plugin.GRPCBroker, connection *grpc.ClientConn,
) (any, error) {
	return connection, nil
}

// Client is what the host dispenses.
type Client struct {
	pb.PeerClient
	Broker *plugin.GRPCBroker
}

// GRPCServer registers the service with the plugin's server.
func (p *Plugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	pb.RegisterPeerServer(server, &peerServer{
		version: p.Version,
		logger:  p.Logger,
		broker:  broker,
		pairs:   map[string][]byte{},
	})
	return nil
}

// GRPCClient makes what the host dispenses.
func (p *Plugin) GRPCClient(
	_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn,
) (any, error) {
	return &Client{PeerClient: pb.NewPeerClient(conn), Broker: broker}, nil
}

type peerServer struct {
	pb.UnimplementedPeerServer
	version int
	logger  hclog.Logger
	broker  *plugin.GRPCBroker
	mutex   sync.Mutex
	pairs   map[string][]byte
}

func (s *peerServer) Put(_ context.Context, pair *pb.Pair) (*pb.Nothing, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.pairs[pair.Key] = pair.Value
	return &pb.Nothing{}, nil
}

func (s *peerServer) Get(_ context.Context, key *pb.Key) (*pb.Pair, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	value, found := s.pairs[key.Key]
	if !found {
		return nil, status.Errorf(codes.NotFound, "no key %q", key.Key)
	}
	return &pb.Pair{Key: key.Key, Value: value, Version: int32(s.version)}, nil
}

func (s *peerServer) Repeat(
	request *pb.RepeatRequest, stream grpc.ServerStreamingServer[pb.Pair],
) error {
	for range request.Count {
		if err := stream.Send(request.Pair); err != nil {
			return err
		}
	}
	if request.Hang {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	return nil
}

func (s *peerServer) Collect(stream grpc.ClientStreamingServer[pb.Pair, pb.Key]) error {
	var keys []string
	for {
		pair, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&pb.Key{Key: strings.Join(keys, " ")})
		}
		if err != nil {
			return err
		}
		keys = append(keys, pair.Key)
	}
}

func (s *peerServer) Echo(stream grpc.BidiStreamingServer[pb.Pair, pb.Pair]) error {
	for {
		pair, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(pair); err != nil {
			return err
		}
	}
}

func (s *peerServer) Fail(_ context.Context, failure *pb.Failure) (*pb.Nothing, error) {
	return nil, status.Error(codes.Code(failure.Code), failure.Message)
}

func (s *peerServer) Crash(_ context.Context, how *pb.Key) (*pb.Nothing, error) {
	switch how.Key {
	case "exit":
		os.Exit(3)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "panic":
		panic("as I was told")
	}
	return nil, status.Errorf(codes.InvalidArgument, "no such crash: %q", how.Key)
}

func (s *peerServer) Print(_ context.Context, request *pb.PrintRequest) (*pb.Nothing, error) {
	if _, err := os.Stdout.Write(request.Stdout); err != nil {
		return nil, err
	}
	if _, err := os.Stderr.Write(request.Stderr); err != nil {
		return nil, err
	}
	return &pb.Nothing{}, nil
}

func (s *peerServer) Log(_ context.Context, request *pb.LogRequest) (*pb.Nothing, error) {
	var fields []any
	for _, field := range request.Fields {
		fields = append(fields, field.Name, field.Value)
	}
	s.logger.Log(hclog.LevelFromString(request.Level), request.Message, fields...)
	return &pb.Nothing{}, nil
}

func (s *peerServer) CallBack(ctx context.Context, service *pb.Service) (*pb.Sum, error) {
	conn, err := s.broker.Dial(service.Id)
	if err != nil {
		return nil, fmt.Errorf("dialling %d: %w", service.Id, err)
	}
	defer conn.Close()
	return pb.NewAdderClient(conn).Add(ctx, &pb.Terms{First: 20, Second: 22})
}

func (s *peerServer) OpenBack(context.Context, *pb.Nothing) (*pb.Service, error) {
	id := s.broker.NextId()
	Serve(s.broker, id, ServeAdder)
	return &pb.Service{Id: id}, nil
}

// Serve has a broker serve, and returns once somebody may dial.
//
// AcceptAndServe, over a multiplexed connection, takes the dialler's knock before there is a
// listener to hand what comes next to. If that is too early, the whole program stops serving: "received
// knock on ID ... that doesn't have a listener". It makes the server after the listener.
func Serve(broker *plugin.GRPCBroker, id uint32, newServer func([]grpc.ServerOption) *grpc.Server) {
	listening := make(chan struct{})
	go broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
		close(listening)
		return newServer(options)
	})
	<-listening
}

// ServeAdder makes the server that a broker serves.
func ServeAdder(options []grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(options...)
	pb.RegisterAdderServer(server, adder{})
	return server
}

// AdderPlugin is a second plugin in the same program.
type AdderPlugin struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer registers the service with the plugin's server.
func (*AdderPlugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	pb.RegisterAdderServer(server, adder{})
	return nil
}

// GRPCClient makes what the host dispenses.
func (*AdderPlugin) GRPCClient(
	_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn,
) (any, error) {
	return pb.NewAdderClient(conn), nil
}

type adder struct{ pb.UnimplementedAdderServer }

func (adder) Add(_ context.Context, terms *pb.Terms) (*pb.Sum, error) {
	return &pb.Sum{Sum: terms.First + terms.Second}, nil
}
