package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// talkEnv makes the test binary say what it reads, to the address in it, and print what it hears.
const talkEnv = "RELAY_TEST_TALK"

func TestMain(m *testing.M) {
	if address := os.Getenv(talkEnv); address != "" {
		c, err := net.Dial("tcp", address)
		if err != nil {
			panic(err)
		}
		go func() { _, _ = io.Copy(c, os.Stdin) }()
		_, _ = io.Copy(os.Stdout, c)
		return
	}
	os.Exit(m.Run())
}

// echo answers each line with itself, on every connection.
func echo(t *testing.T) (address string, heard <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	lines := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewReader(c); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					lines <- line
					if _, err := io.WriteString(c, line); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

// client is a connection through a relay.
type client struct {
	net.Conn
	lines chan string // closed at the end
}

func dial(t *testing.T, port int) *client {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	c := &client{conn, make(chan string, 100)}
	go func() {
		defer close(c.lines)
		for in := bufio.NewScanner(conn); in.Scan(); {
			c.lines <- in.Text()
		}
	}()
	return c
}

func (c *client) say(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(c, line+"\n")
	require.NoError(t, err)
}

const patience = 10 * time.Second

func hear[T any](t *testing.T, from <-chan T) (line T) {
	t.Helper()
	select {
	case line = <-from:
	case <-time.After(patience):
		require.Fail(t, "nothing comes")
	}
	return line
}

func silent[T any](t *testing.T, from <-chan T) {
	t.Helper()
	select {
	case line := <-from:
		require.Fail(t, "something came", "%v", line)
	case <-time.After(50 * time.Millisecond):
	}
}

func start(t *testing.T, from string) (n *Network, port int, heard <-chan string) {
	t.Helper()
	n = newNetwork(func(net.Addr) string { return from })
	t.Cleanup(n.Close)
	address, heard := echo(t)
	port, err := n.Listen(t.Context(), "b", address)
	require.NoError(t, err)
	return n, port, heard
}

func TestHeldOneWay(t *testing.T) {
	n, port, heard := start(t, "a")
	c := dial(t, port)
	c.say(t, "1")
	require.Equal(t, "1\n", hear(t, heard))
	require.Equal(t, "1", hear(t, c.lines))

	n.Set(Held, Link{"b", "a"}) // answers alone
	c.say(t, "2")
	require.Equal(t, "2\n", hear(t, heard))
	silent(t, c.lines)
	n.Mend()
	require.Equal(t, "2", hear(t, c.lines), "what was held arrives")

	n.Set(Held, Link{"a", "b"}) // requests alone
	c.say(t, "3")
	silent(t, heard)
	n.Set(Held, Link{"a", "c"}, Link{"c", "b"})
	silent(t, heard)
	n.Set(Passed, Link{"a", "b"})
	require.Equal(t, "3\n", hear(t, heard))
	require.Equal(t, "3", hear(t, c.lines))
}

func TestHeldBeginning(t *testing.T) {
	n, port, heard := start(t, "a")
	n.Set(Held, Link{"a", "b"})
	c := dial(t, port)
	c.say(t, "1")
	silent(t, heard)
	n.Mend()
	require.Equal(t, "1\n", hear(t, heard))
}

func TestRefused(t *testing.T) {
	n, port, heard := start(t, "a")
	c := dial(t, port)
	c.say(t, "1")
	require.Equal(t, "1\n", hear(t, heard))
	require.Equal(t, "1", hear(t, c.lines))
	n.Set(Refused, Link{"b", "a"})
	require.Empty(t, hear(t, c.lines), "it ended")
	require.Empty(t, hear(t, dial(t, port).lines), "it ended at once")
	n.Mend()
	again := dial(t, port)
	again.say(t, "2")
	require.Equal(t, "2", hear(t, again.lines))
}

// A process that was started by this one is told by its connection.
func TestNames(t *testing.T) {
	require.True(t, Identifies())
	n := New()
	t.Cleanup(n.Close)
	address, heard := echo(t)
	port, err := n.Listen(t.Context(), "b", address)
	require.NoError(t, err)
	n.Set(Held, Link{"x1", "b"})

	self, err := os.Executable()
	require.NoError(t, err)
	for _, name := range []string{"x1", "x2"} {
		cmd := exec.CommandContext(t.Context(), self, "--name", name)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=127.0.0.1:%d", talkEnv, port))
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		_, err = io.WriteString(in, name+"\n")
		require.NoError(t, err)
	}
	require.Equal(t, "x2\n", hear(t, heard), "x1 is held")
	silent(t, heard)
	n.Mend()
	require.Equal(t, "x1\n", hear(t, heard))

	c := dial(t, port) // this process is none of them
	n.Set(Held, Link{"x1", "b"}, Link{"x2", "b"})
	c.say(t, "me")
	require.Equal(t, "me\n", hear(t, heard))
}
