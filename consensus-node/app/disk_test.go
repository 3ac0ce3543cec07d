package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// diskChildEnv makes the test binary a node whose log is on a disk that fails, in the way that it names, while it is written to.
const diskChildEnv = "HOLDFAST_APP_DISK_CHILD"

func diskChild(how string) int {
	return lifecycle.Main(Program, os.Stderr, func(ctx context.Context) error {
		cfg := NewConfig()
		set := config.NewSet(Program)
		cfg.DeclareMember(set)
		if _, err := set.Parse(config.Source{Args: []string{"--data-dir=data"}}); err != nil {
			return err
		}
		if err := cfg.Finish(); err != nil {
			return err
		}
		disk := faultfs.New(1)
		cfg.logFS, cfg.logSegmentBytes = disk, 64<<10
		n, err := Open(cfg, discarding()) //nolint:contextcheck // closing at a failure must not be cut short
		if err != nil {
			return err
		}
		conn := direct.New(Program)
		n.RegisterConsensus(conn)
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // it must not get that far: then the exit code is 0
		defer cancel()
		go func() {
			if n.Healthy(ctx) == nil {
				breakDisk(disk, how)
				keepWriting(ctx, conn)
			}
		}()
		err = lifecycle.NewGroup(slog.New(slog.DiscardHandler), 0, n.Parts()...).Run(ctx)
		return errors.Join(err, n.Close()) //nolint:contextcheck // as above
	})
}

func breakDisk(disk *faultfs.FS, how string) {
	left := 5
	kind := map[string]faultfs.Kind{"sync": faultfs.KindSync, "write": faultfs.KindWrite, "rename": faultfs.KindRename}[how]
	switch how {
	case "full":
		disk.SetCapacity(0)
	case "short":
		disk.SetFault(func(op faultfs.Op) faultfs.Fault {
			if op.Kind != faultfs.KindWrite {
				return faultfs.Fault{}
			}
			return faultfs.Fault{Err: syscall.EIO, Short: op.Size / 2}
		})
	default:
		disk.SetFault(func(op faultfs.Op) faultfs.Fault {
			if op.Kind != kind {
				return faultfs.Fault{}
			}
			if left--; left >= 0 && how != "rename" {
				return faultfs.Fault{}
			}
			return faultfs.Fault{Err: syscall.EIO}
		})
	}
}

// keepWriting writes, one call after the other, until the context or the node ends.
func keepWriting(ctx context.Context, conn *direct.Conn) {
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
	if err != nil {
		return
	}
	data, _ := proto.Marshal(&pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1000)})
	batch := &consensusv1.CallBatch{Hello: &consensusv1.Hello{Version: 1, Name: "test"}}
	for id, taken := uint64(1), uint64(0); ctx.Err() == nil; id++ {
		batch.Taken = taken
		batch.Calls = []*consensusv1.Call{{Id: id, Method: consensusv1.Method_METHOD_PUT, Request: data}}
		if stream.Send(batch) != nil {
			return
		}
		for answered := false; !answered; {
			answers, err := stream.Recv()
			if err != nil {
				return
			}
			if len(answers.GetAnswers()) > 0 {
				answered = true
				taken++
			}
		}
		batch = &consensusv1.CallBatch{}
	}
}

// A write or sync that fails ends the process at once, with the exit code of bad storage and one line that says what failed.
func TestAFailingDiskEndsTheProcess(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	for how, says := range map[string]string{
		"sync":   "sync the raft log in",
		"write":  "write the raft log in",
		"short":  "write the raft log in",
		"full":   "start a new segment of the raft log in",
		"rename": "segment of the raft log in",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, self, "-test.run=^$")
			cmd.Env, cmd.Dir = append(os.Environ(), diskChildEnv+"="+how), t.TempDir()
			var stderr strings.Builder
			cmd.Stderr = &stderr
			_ = cmd.Run()
			require.NoError(t, ctx.Err(), "it went on:\n%s", stderr.String())
			require.Equal(t, failure.ExitStorage, cmd.ProcessState.ExitCode(), "%s", stderr.String())
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			require.Len(t, lines, 1)
			require.Contains(t, lines[0], says)
			require.Contains(t, lines[0], "data/member/log", "the operator learns where")
		})
	}
}
