package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/holdfastdb/holdfast/services/failure"
)

// Listen binds each address ("host:port"; port 0 picks a free one). If one cannot be bound, none stays bound. The error
// is of kind failure.Config and says what to do.
func Listen(ctx context.Context, addresses ...string) ([]net.Listener, error) {
	var listeners []net.Listener
	var config net.ListenConfig
	for _, address := range addresses {
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			for _, bound := range listeners {
				_ = bound.Close()
			}
			return nil, listenError(address, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func listenError(address string, err error) error {
	text := fmt.Sprintf("cannot listen on %s", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text += ": the port is in use; stop the process that has it or choose another URL"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		text += ": this machine has no such address; choose one of its own or 0.0.0.0"
	case errors.Is(err, syscall.EACCES):
		text += ": not permitted; choose a port above 1023"
	}
	return failure.Wrap(failure.Config, text, cause(err))
}

// cause is the system's word for a network error, without the address again.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
