package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/failure"
)

// lane is the bus of one standalone process: in memory, or an embedded NATS server where outside subscribers are wanted.
type lane struct {
	memory *bus.Memory
	nats   *server.Server
	logger *slog.Logger
}

// newLane starts the bus; without an address it stays in memory and nothing listens.
func newLane(listen string, logger *slog.Logger) (*lane, error) {
	if listen == "" {
		return &lane{memory: bus.NewMemory(bus.Limits{}), logger: logger}, nil
	}
	host, portText, err := net.SplitHostPort(listen)
	port, portErr := strconv.Atoi(portText)
	if err = errors.Join(err, portErr); err != nil {
		return nil, failure.Wrap(failure.Config, fmt.Sprintf("--bus-listen %q is not host:port", listen), err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	nats, err := server.NewServer(&server.Options{
		ServerName: program, Host: host, Port: port, NoSigs: true, NoLog: true,
		// A slow subscriber loses messages of its own; it must not stall the node that publishes.
		NoFastProducerStall: true,
	})
	if err != nil {
		return nil, failure.Wrap(failure.Config, fmt.Sprintf("--bus-listen %s cannot be used", listen), err)
	}
	go nats.Start()
	const patience = 5 * time.Second
	if !nats.ReadyForConnections(patience) {
		nats.Shutdown()
		return nil, failure.New(failure.Config, fmt.Sprintf("--bus-listen %s cannot be listened on: stop what uses it or choose another port", listen))
	}
	return &lane{nats: nats, logger: logger}, nil
}

// connect gives a part its connection.
func (l *lane) connect(name string) (bus.Bus, error) {
	if l.memory != nil {
		return l.memory.Connect(), nil
	}
	return bus.NewNATS(bus.NATSConfig{URL: l.nats.ClientURL(), Name: name, Logger: l.logger, InProcess: l.nats})
}

// close ends the server after its users.
func (l *lane) close() error {
	if l.nats != nil {
		l.nats.Shutdown()
		l.nats.WaitForShutdown()
	}
	return nil
}
