// One end of a yamux connection. What it sends comes back, or it sends back what comes.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"

	"github.com/hashicorp/yamux"
)

func main() {
	path := flag.String("path", "", "the socket")
	listen := flag.Bool("listen", false, "listen, and be yamux's server; otherwise connect")
	open := flag.Int("open", 0, "how many streams to open; with none, echo what comes")
	size := flag.Int("size", 0, "how much to send on each stream")
	flag.Parse()
	result, err := run(*path, *listen, *open, *size)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type result struct {
	Streams int   `json:"streams"`
	Bytes   int64 `json:"bytes"`
}

func run(path string, listen bool, open, size int) (*result, error) {
	session, err := begin(path, listen)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if open == 0 {
		return echo(session)
	}
	if _, err := session.Ping(); err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	return send(session, open, size)
}

func begin(path string, listen bool) (*yamux.Session, error) {
	config := yamux.DefaultConfig()
	if !listen {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return nil, err
		}
		return yamux.Client(conn, config)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	fmt.Fprintln(os.Stderr, "listening")
	conn, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	return yamux.Server(conn, config)
}

// echo sends back what comes on each stream, until the other side has gone.
func echo(session *yamux.Session) (*result, error) {
	var (
		group  sync.WaitGroup
		mutex  sync.Mutex
		echoed result
	)
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			break
		}
		group.Add(1)
		go func() {
			defer group.Done()
			defer stream.Close()
			count, _ := io.Copy(stream, stream)
			mutex.Lock()
			defer mutex.Unlock()
			echoed.Streams++
			echoed.Bytes += count
		}()
	}
	group.Wait()
	return &echoed, nil
}

// send has everything come back that it sends, on all streams at the same time.
func send(session *yamux.Session, open, size int) (*result, error) {
	errs := make([]error, open)
	var group sync.WaitGroup
	for number := range errs {
		group.Add(1)
		go func() {
			defer group.Done()
			errs[number] = exchange(session, uint64(number), size)
		}()
	}
	group.Wait()
	return &result{open, int64(open) * int64(size)}, errors.Join(errs...)
}

func exchange(session *yamux.Session, seed uint64, size int) error {
	stream, err := session.OpenStream()
	if err != nil {
		return err
	}
	source := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, size)
	for index := range data {
		data[index] = byte(source.Uint32())
	}
	wrote := make(chan error, 1)
	go func() {
		defer stream.Close() // ends what is sent; receiving goes on
		for rest := data; len(rest) > 0; {
			count := min(len(rest), 1+source.IntN(100_000))
			if _, err := stream.Write(rest[:count]); err != nil {
				wrote <- err
				return
			}
			rest = rest[count:]
		}
		wrote <- nil
	}()
	back, err := io.ReadAll(stream)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%d octets came back as %d other ones", len(data), len(back))
	}
	return nil
}
