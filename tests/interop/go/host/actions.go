package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pyvider.test/interop/peer"
	pb "pyvider.test/interop/proto"
)

const (
	// patience bounds each thing that is done.
	patience = 20 * time.Second
	// large is the size of a message that default limits would not let pass.
	large = 64 << 20
	// many is how many calls are made at the same time.
	many = 200
)

type session struct {
	*peer.Client
	client   *plugin.Client
	protocol plugin.ClientProtocol
	config   plugin.ClientConfig
}

// actions are what this program can be told to do, one after the other.
var actions = map[string]func(*session) (any, error){
	"ping":              (*session).ping,
	"kv":                (*session).kv,
	"missing":           (*session).missing,
	"fail":              (*session).fail,
	"deadline":          (*session).deadline,
	"repeat":            (*session).repeat,
	"collect":           (*session).collect,
	"echo":              (*session).echo,
	"large":             (*session).large,
	"many":              (*session).many,
	"killed":            (*session).killed,
	"stopped":           (*session).stopped,
	"crash-exit":        func(s *session) (any, error) { return s.crash("exit") },
	"crash-kill":        func(s *session) (any, error) { return s.crash("kill") },
	"print":             (*session).print,
	"print-last":        (*session).printLast,
	"long-log":          (*session).longLog,
	"broken":            (*session).broken,
	"log":               (*session).log,
	"call-back":         (*session).callBack,
	"open-back":         (*session).openBack,
	"several-brokers":   (*session).severalBrokers,
	"brokers-at-once":   (*session).brokersAtOnce,
	"conformance":       (*session).conformance,
	"conformance-stdio": (*session).conformanceStdio,
	"conformance-panic": (*session).conformancePanic,
	"reattached":        (*session).reattached,
	"interrupted":       (*session).interrupted,
	"die":               (*session).die,
	"address":           (*session).address,
	"described":         (*session).described,
	"add":               (*session).add,
}

func describe(err error) map[string]string {
	description := map[string]string{"text": err.Error()}
	if state, ok := status.FromError(err); ok {
		description["code"] = state.Code().String()
		description["message"] = state.Message()
	}
	return description
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (s *session) ping() (any, error) {
	return "pong", s.protocol.Ping()
}

func (s *session) kv() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	value := []byte("a value\x00\xff")
	if _, err := s.Put(ctx, &pb.Pair{Key: "ключ", Value: value}); err != nil {
		return nil, err
	}
	pair, err := s.Get(ctx, &pb.Key{Key: "ключ"})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(pair.Value, value) {
		return nil, fmt.Errorf("got %q", pair.Value)
	}
	return pair.Version, nil
}

func (s *session) missing() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	return s.Get(ctx, &pb.Key{Key: "no such key"})
}

func (s *session) fail() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	_, err := s.Fail(ctx, &pb.Failure{Code: int32(codes.FailedPrecondition), Message: "nicht möglich: 100 %"})
	return nil, err
}

func (s *session) deadline() (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	stream, err := s.Repeat(ctx, &pb.RepeatRequest{Hang: true})
	if err != nil {
		return nil, err
	}
	_, err = stream.Recv()
	return nil, err
}

func (s *session) repeat() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	stream, err := s.Repeat(ctx, &pb.RepeatRequest{Pair: &pb.Pair{Key: "again"}, Count: 100})
	if err != nil {
		return nil, err
	}
	count := 0
	for {
		pair, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		if pair.Key != "again" {
			return count, fmt.Errorf("got %q", pair.Key)
		}
		count++
	}
}

func (s *session) collect() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	stream, err := s.Collect(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"a", "b", "c"} {
		if err := stream.Send(&pb.Pair{Key: key}); err != nil {
			return nil, err
		}
	}
	keys, err := stream.CloseAndRecv()
	return keys.GetKey(), err
}

func (s *session) echo() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	stream, err := s.Echo(ctx)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, key := range []string{"a", "b", "c"} {
		if err := stream.Send(&pb.Pair{Key: key}); err != nil {
			return nil, err
		}
		pair, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		keys = append(keys, pair.Key)
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the stream did not end: %w", err)
	}
	return strings.Join(keys, " "), nil
}

func (s *session) large() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	value := bytes.Repeat([]byte("0123456789abcdef"), large/16)
	if _, err := s.Put(ctx, &pb.Pair{Key: "large", Value: value}); err != nil {
		return nil, err
	}
	pair, err := s.Get(ctx, &pb.Key{Key: "large"})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(pair.Value, value) {
		return nil, errors.New("the message came back otherwise")
	}
	return len(pair.Value), nil
}

func (s *session) many() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	errs := make([]error, many)
	var group sync.WaitGroup
	for number := range errs {
		group.Add(1)
		go func() {
			defer group.Done()
			key := fmt.Sprintf("key %d", number)
			if _, err := s.Put(ctx, &pb.Pair{Key: key, Value: []byte(key)}); err != nil {
				errs[number] = err
				return
			}
			pair, err := s.Get(ctx, &pb.Key{Key: key})
			if err == nil && string(pair.Value) != key {
				err = fmt.Errorf("%q has the value %q", key, pair.Value)
			}
			errs[number] = err
		}()
	}
	group.Wait()
	return len(errs), errors.Join(errs...)
}

// hanging makes a call that goes on for ever, and returns when the plugin is at it.
func (s *session) hanging(ctx context.Context) (grpc.ServerStreamingClient[pb.Pair], error) {
	stream, err := s.Repeat(ctx, &pb.RepeatRequest{Pair: &pb.Pair{}, Count: 1, Hang: true})
	if err == nil {
		_, err = stream.Recv()
	}
	return stream, err
}

// killed kills the plugin in the middle of a call.
func (s *session) killed() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	stream, err := s.hanging(ctx)
	if err != nil {
		return nil, fmt.Errorf("too early: %w", err)
	}
	if err := syscall.Kill(s.client.ReattachConfig().Pid, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("too early: %w", err)
	}
	_, err = stream.Recv()
	return s.waitExited(), err
}

// stopped ends the plugin as a host does, in the middle of a call.
func (s *session) stopped() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	stream, err := s.hanging(ctx)
	if err != nil {
		return nil, fmt.Errorf("too early: %w", err)
	}
	s.client.Kill()
	_, err = stream.Recv()
	return s.client.Exited(), err
}

func (s *session) crash(how string) (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	_, err := s.Crash(ctx, &pb.Key{Key: how})
	return s.waitExited(), err
}

// reattached has another client take over the plugin, use it, and end it.
func (s *session) reattached() (any, error) {
	config := s.config
	config.Cmd = nil
	config.SecureConfig = nil
	config.Plugins = config.VersionedPlugins[s.client.NegotiatedVersion()]
	config.Reattach = s.client.ReattachConfig()
	client := plugin.NewClient(&config)
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	dispensed, err := protocol.Dispense(peer.Name)
	if err != nil {
		return nil, err
	}
	other := &session{
		Client: dispensed.(*peer.Client), client: client, protocol: protocol, config: s.config,
	}
	results := map[string]any{}
	for name, action := range map[string]func() (any, error){
		"ping": other.ping, "kv": other.kv, "call-back": other.callBack, "open-back": other.openBack,
	} {
		if results[name], err = action(); err != nil {
			return results, fmt.Errorf("%s: %w", name, err)
		}
	}
	client.Kill()
	results["exited"] = s.waitExited()
	return results, nil
}

// interrupted does what Ctrl-C in a terminal does to a plugin.
func (s *session) interrupted() (any, error) {
	if err := syscall.Kill(s.client.ReattachConfig().Pid, syscall.SIGINT); err != nil {
		return nil, err
	}
	return s.kv()
}

// die ends this program in the worst way, and so leaves the plugin alone.
func (s *session) die() (any, error) {
	return nil, syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
}

// address says where the plugin listens and who may connect.
func (s *session) address() (any, error) {
	address := s.client.ReattachConfig().Addr
	result := map[string]any{"network": address.Network(), "address": address.String()}
	if address.Network() == "unix" {
		info, err := os.Stat(address.String())
		if err != nil {
			return nil, err
		}
		result["mode"] = info.Mode().Perm().String()
		result["group"] = info.Sys().(*syscall.Stat_t).Gid
	}
	return result, nil
}

// waitExited waits until go-plugin has noticed that the plugin has ended.
func (s *session) waitExited() bool {
	return eventually(s.client.Exited)
}

// eventually waits for what nobody tells.
func eventually(condition func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}

// print has the plugin print, and waits until it is here.
func (s *session) print() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	request := &pb.PrintRequest{
		Stdout: []byte("to stdout: é\n" + strings.Repeat("o", 5000) + "\n"),
		Stderr: []byte("to stderr: é\n" + strings.Repeat("e", 5000) + "\n"),
	}
	if _, err := s.Print(ctx, request); err != nil {
		return nil, err
	}
	return s.printed(request.Stdout, request.Stderr), nil
}

// printLast has the plugin print, and does not wait: what comes next is its end.
func (s *session) printLast() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	_, err := s.Print(ctx, &pb.PrintRequest{
		Stdout: []byte(strings.Repeat("o", 1<<20) + "\nno newline"),
		Stderr: []byte(strings.Repeat("e", 1<<20) + "\nno newline"),
	})
	return true, err
}

// printed waits until what the plugin printed last is here.
func (s *session) printed(stdout, stderr []byte) bool {
	return eventually(func() bool {
		return strings.HasSuffix(s.config.SyncStdout.(*buffer).String(), string(stdout)) &&
			strings.HasSuffix(s.config.SyncStderr.(*buffer).String(), string(stderr))
	})
}

// broken has a handler fail in a way that it did not mean to.
func (s *session) broken() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	_, err := s.Fail(ctx, &pb.Failure{Message: "broken"})
	return nil, err
}

func (s *session) log() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	fields := []*pb.Field{{Name: "answer", Value: "42"}}
	for _, level := range []string{"trace", "debug", "info", "warn", "error"} {
		_, err := s.Log(ctx, &pb.LogRequest{Level: level, Message: "a line of " + level, Fields: fields})
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// longLog has the plugin log more than fits into a line.
func (s *session) longLog() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	message := "begin " + strings.Repeat("é\n", 100_000)
	_, err := s.Log(ctx, &pb.LogRequest{Level: "warn", Message: message})
	return nil, err
}

// add calls the other service of the plugin.
func (s *session) add() (any, error) {
	dispensed, err := s.protocol.Dispense(peer.AdderName)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded()
	defer cancel()
	sum, err := dispensed.(pb.AdderClient).Add(ctx, &pb.Terms{First: 1, Second: 2})
	return sum.GetSum(), err
}

// callBack has the plugin call a service of this program.
func (s *session) callBack() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	id := s.Broker.NextId()
	peer.Serve(s.Broker, id, peer.ServeAdder)
	sum, err := s.CallBack(ctx, &pb.Service{Id: id})
	return sum.GetSum(), err
}

// openBack calls a service that the plugin opened for it.
func (s *session) openBack() (any, error) {
	ctx, cancel := bounded()
	defer cancel()
	service, err := s.OpenBack(ctx, &pb.Nothing{})
	if err != nil {
		return int64(0), err
	}
	conn, err := s.Broker.Dial(service.Id)
	if err != nil {
		return int64(0), err
	}
	defer conn.Close()
	sum, err := pb.NewAdderClient(conn).Add(ctx, &pb.Terms{First: 1, Second: 2})
	return sum.GetSum(), err
}

// severalBrokers does both, some times over, one after the other.
func (s *session) severalBrokers() (any, error) {
	var total int64
	for range 5 {
		for _, action := range []func() (any, error){s.callBack, s.openBack} {
			sum, err := action()
			if err != nil {
				return total, err
			}
			total += sum.(int64)
		}
	}
	return total, nil
}

// brokersAtOnce does both, many times at once.
func (s *session) brokersAtOnce() (any, error) {
	errs := make([]error, 40)
	var total atomic.Int64
	var group sync.WaitGroup
	for number := range errs {
		action := s.callBack
		if number%2 == 0 {
			action = s.openBack
		}
		group.Add(1)
		go func() {
			defer group.Done()
			sum, err := action()
			total.Add(sum.(int64))
			errs[number] = err
		}()
	}
	group.Wait()
	return total.Load(), errors.Join(errs...)
}
