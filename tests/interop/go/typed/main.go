// A host that calls a plugin whose service is a plain Python class, through the .proto file that
// was made of that class. It prints what it got as one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"pyvider.test/interop/peer"
	pb "pyvider.test/interop/typedproto"
)

func main() {
	mtls := flag.Bool("mtls", false, "use AutoMTLS")
	flag.Parse()
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "PLUGIN_MAGIC_COOKIE",
			MagicCookieValue: "rpcplugin-default-cookie",
		},
		Plugins:          plugin.PluginSet{"inventory": peer.Connection{}},
		Cmd:              exec.Command(flag.Arg(0), flag.Args()[1:]...),
		AutoMTLS:         *mtls,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
	})
	results, err := run(client)
	client.Kill()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(client *plugin.Client) (map[string]any, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	dispensed, err := protocol.Dispense("inventory")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return call(ctx, pb.NewInventoryClient(dispensed.(*grpc.ClientConn)))
}

func call(ctx context.Context, client pb.InventoryClient) (map[string]any, error) {
	results := map[string]any{}
	since := timestamppb.New(time.Date(2024, 2, 29, 12, 0, 0, 123456000, time.UTC))
	apple := &pb.Item{
		Name: "apple", Colour: pb.Colour_COLOUR_RED, Price: proto.Float64(2.5),
		Tags: []string{"a", "b"}, Sizes: map[string]int64{"small": -1}, Since: since,
	}
	put, err := client.Put(ctx, &pb.PutRequest{Item: apple})
	if err != nil {
		return nil, err
	}
	results["put"] = put.Result
	// What it is by default, the plugin says.
	pear := &pb.Item{Name: "pear", Colour: pb.Colour_COLOUR_BLUE}
	put, err = client.Put(ctx, &pb.PutRequest{Item: pear, Replace: proto.Bool(false)})
	if err != nil {
		return nil, err
	}
	results["put again"] = put.Result
	got, err := client.Get(ctx, &pb.GetRequest{Name: "apple"})
	if err != nil {
		return nil, err
	}
	results["same"] = proto.Equal(got, apple)
	got, err = client.Get(ctx, &pb.GetRequest{Name: "pear"})
	if err != nil {
		return nil, err
	}
	results["price"], results["colour"] = got.GetPrice(), got.Colour.String()

	_, err = client.Get(ctx, &pb.GetRequest{Name: "plum"})
	results["missing"] = said(err)
	_, err = client.Put(ctx, &pb.PutRequest{})
	results["no item"] = said(err)
	_, err = client.Put(ctx, &pb.PutRequest{Item: &pb.Item{Name: "plum"}})
	results["no colour"] = said(err)

	for name, shape := range map[string]*pb.CircleOrSquare{
		"circle": {Kind: &pb.CircleOrSquare_Circle{Circle: &pb.Circle{Radius: 2}}},
		"square": {Kind: &pb.CircleOrSquare_Square{Square: &pb.Square{Side: 3}}},
	} {
		area, err := client.Area(ctx, &pb.AreaRequest{Shape: shape})
		if err != nil {
			return nil, err
		}
		results[name] = area.Result
	}
	if results["names"], err = names(ctx, client); err != nil {
		return nil, err
	}
	if results["total"], err = total(ctx, client, apple, pear); err != nil {
		return nil, err
	}
	results["greet"], err = greet(ctx, client)
	return results, err
}

func names(ctx context.Context, client pb.InventoryClient) ([]string, error) {
	stream, err := client.Names(ctx, &pb.NamesRequest{Prefix: proto.String("")})
	if err != nil {
		return nil, err
	}
	var found []string
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		found = append(found, reply.Result)
	}
}

func total(ctx context.Context, client pb.InventoryClient, items ...*pb.Item) (float64, error) {
	stream, err := client.Total(ctx)
	if err != nil {
		return 0, err
	}
	// The first message has the other arguments, and may have an item as well.
	factor := proto.Float64(2)
	for _, item := range items {
		if err := stream.Send(&pb.TotalRequest{Items: item, Factor: factor}); err != nil {
			return 0, err
		}
		factor = nil
	}
	reply, err := stream.CloseAndRecv()
	return reply.GetResult(), err
}

func greet(ctx context.Context, client pb.InventoryClient) ([]string, error) {
	stream, err := client.Greet(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.GreetRequest{Greeting: proto.String("Good day")}); err != nil {
		return nil, err
	}
	var heard []string
	for _, name := range []string{"Ada", ""} {
		if err := stream.Send(&pb.GreetRequest{Names: proto.String(name)}); err != nil {
			return nil, err
		}
		reply, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		heard = append(heard, reply.Result)
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	_, err = stream.Recv()
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return heard, nil
}

func said(err error) string {
	return fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
}
