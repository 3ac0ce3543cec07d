package robustness

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

var (
	durationFlag = flag.Duration("duration", 50*time.Second, "how long faults happen, for each system")
	seedFlag     = flag.Uint64("seed", 0, "seed of the faults and the clients; 0 takes HOLDFAST_SEED or a new one")
	systemFlag   = flag.String("system", "standalone,split", "which of standalone, split and etcd")
	onlyFlag     = flag.String("only", "", "let these faults alone happen, for example kill-leader,pause")
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast", "etcd")...))
}

func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if text := os.Getenv("HOLDFAST_SEED"); s == 0 && text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed=%d)", s, s)
	return s
}
