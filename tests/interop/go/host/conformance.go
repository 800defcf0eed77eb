package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-plugin"
	grpctest "github.com/hashicorp/go-plugin/test/grpc"
	"google.golang.org/grpc"

	"pyvider.test/interop/peer"
)

// conformanceName is what the service of go-plugin's own tests is dispensed as.
const conformanceName = "conformance"

// conformancePlugin is the host's side of it. Its other side is in Python.
type conformancePlugin struct{ plugin.NetRPCUnsupportedPlugin }

type conformanceClient struct {
	grpctest.TestClient
	broker *plugin.GRPCBroker
}

func (conformancePlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is a host")
}

func (conformancePlugin) GRPCClient(
	_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn,
) (any, error) {
	return &conformanceClient{grpctest.NewTestClient(conn), broker}, nil
}

// conformance does what go-plugin's own tests do.
func (s *session) conformance() (any, error) {
	dispensed, err := s.protocol.Dispense(conformanceName)
	if err != nil {
		return nil, err
	}
	client := dispensed.(*conformanceClient)
	ctx, cancel := bounded()
	defer cancel()
	doubled, err := client.Double(ctx, &grpctest.TestRequest{Input: 21})
	if err != nil {
		return nil, fmt.Errorf("Double: %w", err)
	}
	for _, request := range []*grpctest.PrintKVRequest{
		{Key: "text", Value: &grpctest.PrintKVRequest_ValueString{ValueString: "value"}},
		{Key: "number", Value: &grpctest.PrintKVRequest_ValueInt{ValueInt: 7}},
	} {
		if _, err := client.PrintKV(ctx, request); err != nil {
			return nil, fmt.Errorf("PrintKV: %w", err)
		}
	}
	streamed, err := client.stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("Stream: %w", err)
	}
	message, err := client.bidirectional(ctx)
	if err != nil {
		return nil, fmt.Errorf("Bidirectional: %w", err)
	}
	return map[string]any{"double": doubled.Output, "stream": streamed, "ping": message}, nil
}

func (c *conformanceClient) stream(ctx context.Context) ([]int32, error) {
	stream, err := c.Stream(ctx)
	if err != nil {
		return nil, err
	}
	for number := range int32(3) {
		if err := stream.Send(&grpctest.TestRequest{Input: number}); err != nil {
			return nil, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var numbers []int32
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return numbers, nil
		}
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, response.Output)
	}
}

func (c *conformanceClient) bidirectional(ctx context.Context) (string, error) {
	id := c.broker.NextId()
	peer.Serve(c.broker, id, func(options []grpc.ServerOption) *grpc.Server {
		server := grpc.NewServer(options...)
		grpctest.RegisterPingPongServer(server, pingPong{})
		return server
	})
	response, err := c.Bidirectional(ctx, &grpctest.BidirectionalRequest{Id: id})
	if err != nil {
		return "", err
	}
	conn, err := c.broker.Dial(response.Id)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	pong, err := grpctest.NewPingPongClient(conn).Ping(ctx, &grpctest.PingRequest{})
	return pong.GetMsg(), err
}

type pingPong struct {
	grpctest.UnimplementedPingPongServer
}

func (pingPong) Ping(context.Context, *grpctest.PingRequest) (*grpctest.PongResponse, error) {
	return &grpctest.PongResponse{Msg: "pong"}, nil
}

// conformanceStdio has the plugin print, and waits until it is here.
func (s *session) conformanceStdio() (any, error) {
	dispensed, err := s.protocol.Dispense(conformanceName)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded()
	defer cancel()
	request := &grpctest.PrintStdioRequest{
		Stdout: []byte("for stdout\n"), Stderr: []byte("for stderr\n"),
	}
	if _, err = dispensed.(*conformanceClient).PrintStdio(ctx, request); err != nil {
		return nil, err
	}
	return s.printed(request.Stdout, request.Stderr), nil
}

// conformancePanic has it end.
func (s *session) conformancePanic() (any, error) {
	dispensed, err := s.protocol.Dispense(conformanceName)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded()
	defer cancel()
	_, err = dispensed.(*conformanceClient).Panic(ctx, &grpctest.PanicRequest{Message: "told so"})
	return s.waitExited(), err
}
