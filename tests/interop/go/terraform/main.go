// A host that starts a provider as Terraform does. It reads what to do from its standard input, one
// JSON object on each line, and prints what came of it, and what the provider logs, in the same way.
// At the end of its input it ends the provider, and says how that went.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"github.com/zclconf/go-cty/cty/msgpack"
	"google.golang.org/grpc"

	"pyvider.test/interop/peer"
)

// patience bounds each call.
const patience = 20 * time.Second

// notKnown is how a value that is not known is said in JSON.
const notKnown = "<unknown>"

// task is one line of the input: a call, whose request and response stay as they are; or a value of
// Terraform's that is to be encoded or decoded by its own library.
type task struct {
	ID      int             `json:"id"`
	Call    string          `json:"call"`
	Request []byte          `json:"request"`
	Type    json.RawMessage `json:"type"`
	Value   json.RawMessage `json:"value"`
	// Unknown are the attributes which are to be unknown, and true if it is known that they are
	// there.
	Unknown map[string]bool `json:"unknown"`
	Msgpack []byte          `json:"msgpack"`
}

type result struct {
	ID       int    `json:"id"`
	Response []byte `json:"response,omitempty"`
	Msgpack  []byte `json:"msgpack,omitempty"`
	Value    any    `json:"value,omitempty"`
	Error    string `json:"error,omitempty"`
}

// bytesAsTheyAre is a codec for messages that are bytes already.
type bytesAsTheyAre struct{}

func (bytesAsTheyAre) Name() string                          { return "proto" }
func (bytesAsTheyAre) Marshal(message any) ([]byte, error)   { return message.([]byte), nil }
func (bytesAsTheyAre) Unmarshal(data []byte, into any) error { *into.(*[]byte) = data; return nil }

// output prints one line after the other, whoever says them.
type output struct {
	mutex sync.Mutex
}

func (o *output) say(what any) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		panic(err)
	}
}

// Write is given a line of the log.
func (o *output) Write(line []byte) (int, error) {
	o.say(map[string]any{"log": json.RawMessage(line)})
	return len(line), nil
}

func main() {
	out := &output{}
	plugins := plugin.PluginSet{"provider": peer.Connection{}}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  4,
			MagicCookieKey:   "TF_PLUGIN_MAGIC_COOKIE",
			MagicCookieValue: "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2",
		},
		VersionedPlugins: map[int]plugin.PluginSet{5: plugins, 6: plugins},
		Cmd:              exec.Command(os.Args[1], os.Args[2:]...),
		AutoMTLS:         true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: out, JSONFormat: true}),
		SyncStdout:       os.Stderr,
		SyncStderr:       os.Stderr,
	})
	err := run(client, out)
	client.Kill()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(client *plugin.Client, out *output) error {
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	dispensed, err := protocol.Dispense("provider")
	if err != nil {
		return err
	}
	out.say(map[string]any{"version": client.NegotiatedVersion()})
	connection := dispensed.(*grpc.ClientConn)
	var running sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var todo task
		if err := json.Unmarshal(lines.Bytes(), &todo); err != nil {
			return err
		}
		running.Add(1)
		go func() {
			defer running.Done()
			did, err := do(connection, todo)
			did.ID = todo.ID
			if err != nil {
				did.Error = err.Error()
			}
			out.say(did)
		}()
	}
	running.Wait()
	return lines.Err()
}

func do(connection *grpc.ClientConn, todo task) (did result, err error) {
	if todo.Call != "" {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		method := "/tfplugin6.Provider/" + todo.Call
		err = connection.Invoke(
			ctx, method, todo.Request, &did.Response, grpc.ForceCodec(bytesAsTheyAre{}),
		)
		return did, err
	}
	kind, err := ctyjson.UnmarshalType(todo.Type)
	if err != nil {
		return did, err
	}
	if todo.Msgpack != nil {
		value, err := msgpack.Unmarshal(todo.Msgpack, kind)
		if err == nil {
			did.Value, err = known(value)
		}
		return did, err
	}
	value, err := ctyjson.Unmarshal(todo.Value, kind)
	if err != nil {
		return did, err
	}
	value, err = cty.Transform(value, func(path cty.Path, part cty.Value) (cty.Value, error) {
		if len(path) != 1 {
			return part, nil
		}
		name := path[0].(cty.GetAttrStep).Name
		isThere, unknown := todo.Unknown[name]
		switch {
		case !unknown:
			return part, nil
		case isThere:
			return cty.UnknownVal(part.Type()).RefineNotNull(), nil
		default:
			return cty.UnknownVal(part.Type()), nil
		}
	})
	if err == nil {
		did.Msgpack, err = msgpack.Marshal(value, kind)
	}
	return did, err
}

// known returns a value as JSON has it, and of an object the attributes that are known.
func known(value cty.Value) (any, error) {
	if value.IsNull() || !value.Type().IsObjectType() {
		return ctyjson.SimpleJSONValue{Value: value}, nil
	}
	attributes := map[string]any{}
	for name, part := range value.AsValueMap() {
		if part.IsWhollyKnown() {
			attributes[name] = ctyjson.SimpleJSONValue{Value: part}
		} else {
			attributes[name] = notKnown
		}
	}
	return attributes, nil
}
