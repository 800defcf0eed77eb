// A host that puts a value into a plugin, or gets it: the plugin is the command in KV_PLUGIN.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"pyvider.example/kv/kv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(words []string) error {
	command := strings.Fields(os.Getenv("KV_PLUGIN"))
	if len(command) == 0 {
		return errors.New("KV_PLUGIN has to be the command of a plugin")
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  kv.Handshake,
		Plugins:          plugin.PluginSet{kv.Name: &kv.Plugin{}},
		Cmd:              exec.Command(command[0], command[1:]...),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr}),
	})
	defer client.Kill()
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	dispensed, err := protocol.Dispense(kv.Name)
	if err != nil {
		return err
	}
	store := dispensed.(kv.KVClient)

	switch {
	case len(words) == 3 && words[0] == "put":
		_, err := store.Put(context.Background(), &kv.PutRequest{Key: words[1], Value: []byte(words[2])})
		return err
	case len(words) == 2 && words[0] == "get":
		reply, err := store.Get(context.Background(), &kv.GetRequest{Key: words[1]})
		if err == nil {
			fmt.Println(string(reply.Value))
		}
		return err
	default:
		return errors.New("put KEY VALUE, or get KEY")
	}
}
