// Package health is the command that asks a process for its health, from beside it: images of static binaries have no shell and no
// curl, and container runtimes judge a process by a command's exit code.
//
// It asks over plain HTTP/1, never through a proxy of the environment, and answers within Patience. It knows no service.
package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/services/failure"
)

// Command is the first argument that asks for health instead of starting the service.
const Command = "health"

// Patience bounds one question. It lies under what container runtimes commonly give a check.
const Patience = 4 * time.Second

// answerBytesMax bounds what of an answer is shown.
const answerBytesMax = 4 << 10

// Asked tells whether the arguments ask for health, and gives those that follow.
func Asked(args []string) (rest []string, asked bool) {
	if len(args) == 0 || args[0] != Command {
		return args, false
	}
	return args[1:], true
}

// Own asks this host's process that listens on the first of the addresses, host:port as for a listener, at /health. flag names
// where the addresses come from. The error is of kind failure.Config if there is no address, else failure.Unavailable.
func Own(ctx context.Context, out io.Writer, flag string, addresses []string) error {
	if len(addresses) == 0 {
		return failure.New(failure.Config, fmt.Sprintf("--%s is empty: the process would serve no /health to ask", flag))
	}
	host, port, err := net.SplitHostPort(addresses[0])
	if err != nil {
		return failure.Wrap(failure.Config, "--"+flag+" is malformed", err)
	}
	// Who listens on every address listens on this one.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return Ask(ctx, out, "http://"+net.JoinHostPort(host, port)+"/health")
}

// Ask gets the URL and prints the answer. Any answer but 200, and none within Patience, is an error of kind failure.Unavailable;
// a URL that is none is of kind failure.Config.
func Ask(ctx context.Context, out io.Writer, address string) error {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Scheme != "http" || parsed.Host == "" {
		return failure.New(failure.Config, fmt.Sprintf("%q is no URL to ask: write http://host:port/path", address))
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return failure.Wrap(failure.Config, "cannot ask "+address, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return failure.Wrap(failure.Unavailable, "not healthy", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return failure.Wrap(failure.Unavailable, "not healthy: "+address, err)
	}
	text := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return failure.New(failure.Unavailable, fmt.Sprintf("not healthy: %s answers %s: %s", address, response.Status, text))
	}
	_, err = fmt.Fprintln(out, text)
	return err
}
