package config_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// settings are flags of every type that services declare.
type settings struct {
	name        string
	heartbeatMs uint
	preVote     bool
	quota       int64
	minTime     time.Duration
	natsURL     string
	clients     *config.URLs
	metrics     *config.Choice
	level       *config.LogLevel
}

func declare() (*config.Set, *settings) {
	v := &settings{
		clients: config.NewURLs(config.Listen, "http://localhost:2379"),
		metrics: config.NewChoice("basic", "extensive"),
		level:   config.NewLogLevel(),
	}
	set := config.NewSet("holdfast")
	set.Group("Member", func(f *pflag.FlagSet) {
		f.StringVar(&v.name, "name", "default", "human-readable `name` of this member")
		f.UintVar(&v.heartbeatMs, "heartbeat-interval", 100, "`milliseconds` between heartbeats")
		f.BoolVar(&v.preVote, "pre-vote", true, "ask before an election")
		f.Int64Var(&v.quota, "quota-backend-bytes", 0, "largest database")
		f.DurationVar(&v.minTime, "grpc-keepalive-min-time", 5*time.Second, "least time between pings")
		f.Var(v.clients, "listen-client-urls", "where clients connect")
	})
	set.Group("Holdfast", func(f *pflag.FlagSet) {
		f.StringVar(&v.natsURL, "nats-url", "", "the bus")
		f.Var(v.metrics, "metrics", "detail of metrics")
		f.Var(v.level, "log-level", "lowest level that is logged")
	})
	return set, v
}

func parse(args, env []string, files map[string]string) (*settings, config.Outcome, error) {
	set, v := declare()
	out, err := set.Parse(config.Source{Args: args, Env: env, ReadFile: func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}})
	return v, out, err
}

func TestPrecedence(t *testing.T) {
	env := []string{
		"ETCD_NAME=env", "ETCD_HEARTBEAT_INTERVAL=200", "ETCD_LISTEN_CLIENT_URLS=http://10.0.0.1:2379,http://10.0.0.1:1",
		"HOLDFAST_NATS_URL=nats://bus:4222", "ETCD_PRE_VOTE=", "PATH=/bin",
	}
	v, out, err := parse([]string{"--name=flag", "--log-level", "debug", "--pre-vote=false"}, env, nil)
	require.NoError(t, err)
	require.Equal(t, "flag", v.name)
	require.EqualValues(t, 200, v.heartbeatMs)
	require.Equal(t, []string{"http://10.0.0.1:1", "http://10.0.0.1:2379"}, v.clients.Strings())
	require.Equal(t, []string{"10.0.0.1:1", "10.0.0.1:2379"}, v.clients.HostPorts())
	require.Equal(t, "nats://bus:4222", v.natsURL)
	require.Equal(t, "basic", v.metrics.String())
	require.Equal(t, slog.LevelDebug, v.level.Level())
	require.False(t, v.preVote)
	require.Equal(t, []string{"ETCD_NAME is ignored because --name is given"}, out.Warnings)
	require.True(t, out.Has("nats-url"))
	require.True(t, out.Has("name"))
	require.False(t, out.Has("metrics"))
}

func TestSingleDashesAsInEtcd(t *testing.T) {
	v, _, err := parse([]string{"-name", "-odd", "-heartbeat-interval=50", "-pre-vote", "--nats-url", "-x"}, nil, nil)
	require.NoError(t, err)
	require.Equal(t, "-odd", v.name)
	require.EqualValues(t, 50, v.heartbeatMs)
	require.Equal(t, "-x", v.natsURL)
}

func TestFileAloneCounts(t *testing.T) {
	file := `
name: from-file
heartbeat-interval: 250
pre-vote: false
quota-backend-bytes: 8589934592
grpc-keepalive-min-time: 3000000000
listen-client-urls: http://127.0.0.1:2379,http://127.0.0.1:4001
nats-url: nats://file:4222
wal-dir:
client-transport-security:
`
	files := map[string]string{"c.yml": file}
	check := func(v *settings, err error) {
		t.Helper()
		require.NoError(t, err)
		require.Equal(t, "from-file", v.name)
		require.EqualValues(t, 250, v.heartbeatMs)
		require.False(t, v.preVote)
		require.EqualValues(t, 8<<30, v.quota)
		require.Equal(t, 3*time.Second, v.minTime)
		require.Len(t, v.clients.List(), 2)
		require.Equal(t, "nats://file:4222", v.natsURL)
		require.Equal(t, "basic", v.metrics.String())
	}
	// An unsupported variable is ignored too: the file alone counts.
	v, out, err := parse([]string{"--config-file=c.yml", "--metrics=extensive"}, []string{"ETCD_NAME=e", "ETCD_CORS=x"}, files)
	check(v, err)
	require.Equal(t, []string{"--metrics is ignored because a configuration file is given"}, out.Warnings)
	v, _, err = parse(nil, []string{"ETCD_CONFIG_FILE=c.yml"}, files)
	check(v, err)
}

func TestBadInput(t *testing.T) {
	file := func(text string) map[string]string { return map[string]string{"c.yml": text} }
	withFile := []string{"--config-file", "c.yml"}
	cases := []struct {
		name  string
		args  []string
		env   []string
		files map[string]string
		want  string
	}{
		{"etcd's flag", []string{"--cert-file=x"}, nil, nil, "flag --cert-file is an etcd flag that Holdfast does not support yet"},
		{"etcd's flag, one dash", []string{"-auto-tls"}, nil, nil, "flag --auto-tls is an etcd flag that Holdfast does not support yet"},
		{"unknown flag", []string{"--nope", "1"}, nil, nil, "unknown flag: --nope (see --help)"},
		{"unknown short flag", []string{"-x"}, nil, nil, "unknown flag: -x (see --help)"},
		{"no value", []string{"--name"}, nil, nil, "flag --name needs a value (see --help)"},
		{"stray", []string{"--name", "a", "b"}, nil, nil, `unexpected argument "b": flags start with --, and lists have no spaces (see --help)`},
		{"number", []string{"--heartbeat-interval=soon"}, nil, nil, `invalid value "soon" for --heartbeat-interval: must be a non-negative integer`},
		{"negative", []string{"--heartbeat-interval=-1"}, nil, nil, `invalid value "-1" for --heartbeat-interval: must be a non-negative integer`},
		{"choice", []string{"--metrics=all"}, nil, nil, `invalid value "all" for --metrics: it must be one of basic, extensive`},
		{"level", []string{"--log-level=loud"}, nil, nil, `invalid value "loud" for --log-level: it must be one of info, debug, warn, error, panic, fatal`},
		{"variable", nil, []string{"ETCD_METRICS=all"}, nil, `invalid value "all" for environment variable ETCD_METRICS: it must be one of basic, extensive`},
		{"etcd's variable", nil, []string{"ETCD_TRUSTED_CA_FILE=x"}, nil, "environment variable ETCD_TRUSTED_CA_FILE is an etcd setting that Holdfast does not support yet: unset it"},
		{"no file", withFile, nil, nil, "cannot read the configuration file c.yml: file does not exist"},
		{"etcd's key", withFile, nil, file("wal-dir: /w"), "key wal-dir in c.yml is an etcd setting that Holdfast does not support yet: remove it"},
		{"etcd's group", withFile, nil, file("peer-transport-security: {auto-tls: true}"), "key peer-transport-security in c.yml is an etcd setting that Holdfast does not support yet: remove it"},
		{"unknown key", withFile, nil, file("nope:"), "unknown key nope in the configuration file c.yml (the keys are the flags' names, see --help)"},
		{"a list", withFile, nil, file("name: [a, b]"), "key name in c.yml must be one value, not a list or a mapping"},
		{"bad key", withFile, nil, file("heartbeat-interval: soon"), `invalid value "soon" for key heartbeat-interval in c.yml: must be a non-negative integer`},
		{"no mapping", withFile, nil, file("- a"), "the configuration file c.yml is not valid YAML: the top level must be a mapping from keys to values"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := parse(c.args, c.env, c.files)
			require.EqualError(t, err, c.want)
			require.True(t, failure.Is(err, failure.Config))
		})
	}
	for name, text := range map[string]string{"twice": "name: a\nname: b", "no YAML": "name: [\nx"} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parse(withFile, nil, file(text))
			require.ErrorContains(t, err, "the configuration file c.yml is not valid YAML: ")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestUnknownVariablesAreWarnedOf(t *testing.T) {
	v, out, err := parse(nil, []string{"ETCD_NOPE=1", "HOLDFAST_NOPE=1", "ETCD_VERSION=v3.5.0", "HOLDFAST_NAME=x"}, nil)
	require.NoError(t, err)
	require.Equal(t, "default", v.name)
	require.False(t, out.Version)
	require.Equal(t, []string{
		"environment variable ETCD_NOPE is unknown and ignored",
		"environment variable ETCD_VERSION is unknown and ignored",
		"environment variable HOLDFAST_NAME is unknown and ignored",
		"environment variable HOLDFAST_NOPE is unknown and ignored",
	}, out.Warnings)
}

func TestHelpAndVersion(t *testing.T) {
	for _, arg := range []string{"--help", "-h", "-help"} {
		_, out, err := parse([]string{"--name=x", arg}, nil, nil)
		require.NoError(t, err)
		require.True(t, out.Help, arg)
	}
	_, out, err := parse([]string{"--version"}, nil, nil)
	require.NoError(t, err)
	require.True(t, out.Version)

	set, _ := declare()
	var text strings.Builder
	require.NoError(t, set.WriteHelp(&text))
	var order []int
	for _, part := range []string{
		"Usage: holdfast [flags]", "Member:", "--grpc-keepalive-min-time", "--heartbeat-interval", "--name name",
		"Holdfast:", "--log-level info|debug", "--nats-url", "General:", "--config-file", "ETCD_NAME",
	} {
		at := strings.Index(text.String(), part)
		require.GreaterOrEqual(t, at, 0, "%q is missing in\n%s", part, text.String())
		order = append(order, at)
	}
	require.IsIncreasing(t, order)
}

func TestEnvName(t *testing.T) {
	require.Equal(t, "ETCD_LISTEN_METRICS_URLS", config.EnvName("listen-metrics-urls"))
	require.Equal(t, "HOLDFAST_OTLP_ENDPOINT", config.EnvName("otlp-endpoint"))
}

func TestURLRules(t *testing.T) {
	cases := []struct {
		role config.Role
		text string
		want string // part of the error; empty for none
	}{
		{config.Listen, "http://0.0.0.0:2379", ""},
		{config.Listen, "http://[::1]:2379, http://localhost:0", ""},
		{config.Listen, "", ""},
		{config.Listen, "http://example.com:2379", "must be an IP address, for example http://0.0.0.0:2379"},
		{config.Listen, "http://:2379", "must be an IP address"},
		{config.Advertise, "http://example.com:2379", ""},
		{config.Advertise, "http://:2379", "has no host"},
		{config.Listen, "https://127.0.0.1:2379", "TLS is not supported yet"},
		{config.Listen, "unix:///run/x.sock", "unix sockets are not supported"},
		{config.Listen, "unixs://localhost:1", "unix sockets are not supported"},
		{config.Listen, "127.0.0.1:2379", "is not a URL"},
		{config.Listen, "localhost:2379", "the scheme must be http"},
		{config.Listen, "ftp://127.0.0.1:2379", "the scheme must be http"},
		{config.Listen, "http://127.0.0.1", "has no port"},
		{config.Listen, "http://127.0.0.1:", "has no port"},
		{config.Listen, "http://127.0.0.1:http", "is not a URL"},
		{config.Listen, "http://127.0.0.1:70000", "the port must be a number from 0 to 65535"},
		{config.Listen, "http://127.0.0.1:2379/", "has no path"},
		{config.Listen, "http://127.0.0.1:2379?x", "has no path"},
		{config.Listen, "http://u@127.0.0.1:2379", "has no path"},
		{config.Listen, "http://127.0.0.1:1,,http://127.0.0.1:2", "an entry of the list is empty"},
	}
	for _, c := range cases {
		u := config.NewURLs(c.role)
		err := u.Set(c.text)
		if c.want == "" {
			require.NoError(t, err, c.text)
			continue
		}
		require.ErrorContains(t, err, c.want, c.text)
		require.Empty(t, u.List(), "a failed Set changes nothing")
	}
	require.Panics(t, func() { config.NewURLs(config.Listen, "nope") })
}

func TestCluster(t *testing.T) {
	c, err := config.ParseCluster("n2=http://h2:2380, n1=http://h1:2381,n1=http://h1:2380")
	require.NoError(t, err)
	require.Equal(t, "n1=http://h1:2380,n1=http://h1:2381,n2=http://h2:2380", c.String())
	require.NoError(t, c.CheckNew("n1", config.NewURLs(config.Advertise, "http://h1:2381,http://h1:2380")))

	for text, want := range map[string]string{
		"":                    "--initial-cluster is empty",
		"n1":                  `has the entry "n1"`,
		"=http://h:1":         `has the entry "=http://h:1"`,
		"n1=h:1":              "--initial-cluster, member n1: h:1: the scheme must be http",
		"n1=https://h:1":      "TLS is not supported yet",
		"n1=http://h:1,":      `has the entry ""`,
		"n1=http://h:1,n2=":   "an entry of the list is empty",
		"n1=http://:1":        "has no host",
		"n1=http://h:1/peers": "has no path",
	} {
		_, err := config.ParseCluster(text)
		require.ErrorContains(t, err, want, text)
		require.True(t, failure.Is(err, failure.Config))
	}
}

func TestClusterChecks(t *testing.T) {
	cases := []struct{ cluster, name, advertised, want string }{
		{
			"n1=http://h1:1", "n2", "http://h1:1",
			`--initial-cluster (n1=http://h1:1) has no member named "n2": add n2=http://host:port or set --name to one of its names`,
		},
		{
			"n1=http://h1:1,n2=http://h1:1", "n1", "http://h1:1",
			"--initial-cluster gives http://h1:1 to n1 and to n2: each member needs a URL of its own",
		},
		{
			"n1=http://h1:1,n1=http://h1:2", "n1", "http://h1:1",
			"--initial-cluster has n1=http://h1:2, which --initial-advertise-peer-urls=http://h1:1 lacks: make the two the same",
		},
		{
			"n1=http://h1:1", "n1", "http://h1:1,http://h1:2",
			"--initial-advertise-peer-urls has http://h1:2, which --initial-cluster lacks for n1: make the two the same",
		},
	}
	for _, c := range cases {
		cluster, err := config.ParseCluster(c.cluster)
		require.NoError(t, err)
		err = cluster.CheckNew(c.name, config.NewURLs(config.Advertise, c.advertised))
		require.EqualError(t, err, c.want)
		require.True(t, failure.Is(err, failure.Config))
	}
}

func TestCheckElection(t *testing.T) {
	require.NoError(t, config.CheckElection(100, 1000))
	require.NoError(t, config.CheckElection(200, 1000))
	require.NoError(t, config.CheckElection(10_000, 50_000))
	for _, bad := range [][2]uint{{0, 1000}, {100, 0}, {201, 1000}, {201, 1004}, {100, 50_001}, {1 << 63, 1000}} {
		err := config.CheckElection(bad[0], bad[1])
		require.True(t, failure.Is(err, failure.Config), "%v", bad)
	}
}

func TestLevels(t *testing.T) {
	order := []string{"debug", "info", "warn", "error", "panic", "fatal"}
	last := slog.Level(-100)
	for _, word := range order {
		l := config.NewLogLevel()
		require.NoError(t, l.Set(word))
		require.Greater(t, l.Level(), last)
		last = l.Level()
	}
	require.Error(t, config.NewLogLevel().Set("trace"))
}

func TestReadErrorsKeepTheirReason(t *testing.T) {
	set, _ := declare()
	_, err := set.Parse(config.Source{
		Args:     []string{"--config-file=c.yml"},
		ReadFile: func(string) ([]byte, error) { return nil, errors.New("is a directory") },
	})
	require.EqualError(t, err, "cannot read the configuration file c.yml: is a directory")
}
