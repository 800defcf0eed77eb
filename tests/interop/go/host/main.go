// A host for plugins written in Python. It starts one, does with it what it is told to, ends it,
// and prints what happened as one JSON object.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"pyvider.test/interop/peer"
)

// report is what this program prints.
type report struct {
	// Error is why the plugin could not be started; the rest is then mostly empty.
	Error   string                       `json:"error,omitempty"`
	Version int                          `json:"version"`
	Results map[string]any               `json:"results"`
	Errors  map[string]map[string]string `json:"errors"`
	// Exit is how the plugin ended.
	Exit string `json:"exit"`
	// KillSeconds is how long it took to end it.
	KillSeconds float64           `json:"kill_seconds"`
	Log         []json.RawMessage `json:"log"`
	Stdout      string            `json:"stdout"`
	Stderr      string            `json:"stderr"`
}

func main() {
	mtls := flag.Bool("mtls", false, "use AutoMTLS")
	multiplex := flag.Bool("multiplex", false, "ask for one connection for all")
	versions := flag.String("versions", "1", "the versions to offer")
	cookie := flag.String("cookie", "interop", "the cookie to send")
	checksum := flag.String("checksum", "", "the SHA-256 that the program has to have")
	reattach := flag.String("reattach", "", "the record of a plugin that runs, as JSON")
	group := flag.String("group", "", "the group that sockets are for")
	certificate := flag.String("own", "", "a file with a certificate and its key, instead of AutoMTLS")
	authority := flag.String("authority", "", "a file with who signs such certificates")
	todo := flag.String("do", "ping", "what to do")
	flag.Parse()

	own, err := peer.TLS(*certificate, *authority)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	config := &plugin.ClientConfig{
		HandshakeConfig:     peer.Handshake(0, *cookie),
		AutoMTLS:            *mtls,
		TLSConfig:           own,
		GRPCBrokerMultiplex: *multiplex,
		AllowedProtocols:    []plugin.Protocol{plugin.ProtocolGRPC},
		SecureConfig:        secure(*checksum),
		UnixSocketConfig:    &plugin.UnixSocketConfig{Group: *group},
	}
	if *reattach == "" {
		config.Cmd = exec.Command(flag.Arg(0), flag.Args()[1:]...)
	} else {
		config.Reattach = record(*reattach)
	}
	result, err := run(*versions, strings.Split(*todo, ","), config)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// record reads a record as Terraform does.
func record(text string) *plugin.ReattachConfig {
	var read struct {
		Protocol        string
		ProtocolVersion int
		Pid             int
		Test            bool
		Addr            struct{ Network, String string }
	}
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		panic(err)
	}
	var addr net.Addr
	var err error
	if read.Addr.Network == "unix" {
		addr, err = net.ResolveUnixAddr("unix", read.Addr.String)
	} else {
		addr, err = net.ResolveTCPAddr("tcp", read.Addr.String)
	}
	if err != nil {
		panic(err)
	}
	return &plugin.ReattachConfig{
		Protocol:        plugin.Protocol(read.Protocol),
		ProtocolVersion: read.ProtocolVersion,
		Pid:             read.Pid,
		Test:            read.Test,
		Addr:            addr,
	}
}

func secure(checksum string) *plugin.SecureConfig {
	if checksum == "" {
		return nil
	}
	sum, err := hex.DecodeString(checksum)
	if err != nil {
		panic(err)
	}
	return &plugin.SecureConfig{Checksum: sum, Hash: sha256.New()}
}

func run(versions string, todo []string, config *plugin.ClientConfig) (*report, error) {
	var log, stdout, stderr buffer
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &log, JSONFormat: true})
	var err error
	if config.VersionedPlugins, err = peer.Versions(versions, logger); err != nil {
		return nil, err
	}
	for _, plugins := range config.VersionedPlugins {
		plugins[conformanceName] = conformancePlugin{}
	}
	if config.Reattach != nil {
		config.Plugins = config.VersionedPlugins[config.Reattach.ProtocolVersion]
	}
	config.Logger = logger
	config.SyncStdout = &stdout
	config.SyncStderr = &stderr

	result := &report{Results: map[string]any{}, Errors: map[string]map[string]string{}}
	client := plugin.NewClient(config)
	if err := use(client, *config, todo, result); err != nil {
		result.Error = err.Error()
	}
	began := time.Now()
	client.Kill()
	result.KillSeconds = time.Since(began).Seconds()
	if config.Cmd != nil && config.Cmd.ProcessState != nil {
		result.Exit = config.Cmd.ProcessState.String()
	}
	result.Stdout, result.Stderr = stdout.String(), stderr.String()
	for line := range strings.Lines(log.String()) {
		result.Log = append(result.Log, json.RawMessage(line))
	}
	return result, nil
}

// buffer is one that several goroutines may write to.
type buffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *buffer) Write(data []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(data)
}

func (b *buffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

func use(
	client *plugin.Client, config plugin.ClientConfig, todo []string, result *report,
) error {
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	result.Version = client.NegotiatedVersion()
	dispensed, err := protocol.Dispense(peer.Name)
	if err != nil {
		return err
	}
	session := &session{
		Client: dispensed.(*peer.Client), client: client, protocol: protocol, config: config,
	}
	for _, name := range todo {
		action, found := actions[name]
		if !found {
			return fmt.Errorf("there is nothing like %q to do", name)
		}
		value, err := action(session)
		if err != nil {
			result.Errors[name] = describe(err)
		}
		if value != nil {
			result.Results[name] = value
		}
	}
	return nil
}
