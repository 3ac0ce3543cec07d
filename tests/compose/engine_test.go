package compose

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// Bounds of what the engine is asked to do; a start of everything is the longest.
const (
	commandTimeout = 3 * time.Minute
	healthTimeout  = 90 * time.Second
	pollPause      = 200 * time.Millisecond
)

// scales is how many replicas of each service that scales there are.
type scales map[string]int

func usual() scales { return scales{"proxy": 3, "watch-hub": 2, "lease-service": 2} }

// engine is one project of docker-compose.
type engine struct {
	root, project string
	compose       []string // the command
	ports         map[string]int
}

// newEngine picks a project's name and its ports on this host: the usual ones where they are free.
func newEngine(t *testing.T) *engine {
	t.Helper()
	root, err := framework.Root()
	require.NoError(t, err)
	e := &engine{root: root, project: fmt.Sprintf("holdfast-test-%d", os.Getpid()), ports: map[string]int{
		"HOLDFAST_CLIENT_PORT": 2379, "HOLDFAST_BALANCER_PORT": 8404, "HOLDFAST_JAEGER_PORT": 16686,
	}}
	e.compose = []string{"docker-compose"}
	if _, err := exec.LookPath(e.compose[0]); err != nil {
		e.compose = []string{"docker", "compose"}
	}
	for name, port := range e.ports {
		e.ports[name] = free(t, port)
	}
	return e
}

// free is the port if nobody listens there, else another.
func free(t *testing.T, port int) int {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		l, err = config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (e *engine) address(port string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(e.ports[port]))
}

// run runs a command in the repository's folder and gives what it said.
func (e *engine) run(ctx context.Context, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = e.root
	cmd.Env = append(os.Environ(), "COMPOSE_PROJECT_NAME="+e.project)
	for name, port := range e.ports {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", name, port))
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (e *engine) must(t *testing.T, command ...string) string {
	t.Helper()
	out, err := e.run(t.Context(), command...)
	require.NoError(t, err)
	return out
}

// up starts everything that does not run, in as many replicas, and removes what is too many.
func (e *engine) up(t *testing.T, replicas scales) {
	t.Helper()
	command := append(append([]string{}, e.compose...), "up", "--detach", "--no-recreate")
	for service, n := range replicas {
		command = append(command, "--scale", fmt.Sprintf("%s=%d", service, n))
	}
	if !*jaegerFlag {
		command = append(command, "haproxy", "nats") // and what these depend on
	}
	e.must(t, command...)
}

// down removes all that the project made, whatever became of the test. A failed test says what the services said.
func (e *engine) down(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if t.Failed() {
		out, err := e.run(ctx, append(append([]string{}, e.compose...), "logs", "--no-color", "--tail", "40")...)
		t.Log(out, err)
	}
	_, err := e.run(ctx, append(append([]string{}, e.compose...), "down", "--volumes", "--remove-orphans", "--timeout", "20")...)
	require.NoError(t, err)
}

// containers are the ids of a service's containers, running or not.
func (e *engine) containers(t *testing.T, service string) []string {
	t.Helper()
	return strings.Fields(e.must(t, "docker", "ps", "--all", "--quiet", "--no-trunc",
		"--filter", "label=com.docker.compose.project="+e.project, "--filter", "label=com.docker.compose.service="+service))
}

// healthy waits until the container's own check says so.
func (e *engine) healthy(t *testing.T, container string) {
	t.Helper()
	deadline := time.Now().Add(healthTimeout)
	for {
		state := e.must(t, "docker", "inspect", "--format", "{{.State.Health.Status}}", container)
		if state == "healthy" {
			return
		}
		require.True(t, time.Now().Before(deadline), "%s is %s after %v", container, state, healthTimeout)
		time.Sleep(pollPause)
	}
}

// kill ends the container's process at once; what is given back starts it again.
func (e *engine) kill(t *testing.T, _, container string) (mend func()) {
	t.Helper()
	e.must(t, "docker", "kill", container)
	return func() { e.must(t, "docker", "start", container) }
}

// cut takes the container off the network; what is given back joins it again, under the service's name.
func (e *engine) cut(t *testing.T, service, container string) (mend func()) {
	t.Helper()
	network := e.project + "_holdfast"
	e.must(t, "docker", "network", "disconnect", network, container)
	return func() { e.must(t, "docker", "network", "connect", "--alias", service, network, container) }
}
