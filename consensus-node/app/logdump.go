package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// dumped is one line of a log dump.
type dumped struct {
	Index    uint64            `json:"index"`
	Term     uint64            `json:"term"`
	Type     string            `json:"type"`
	Requests []json.RawMessage `json:"requests,omitempty"`
}

// DumpLog prints the entries of a stopped node's log as JSON lines, in the order in which they were written: an entry that was replaced
// by another leader's comes before its successor.
func DumpLog(src config.Source, stdout io.Writer) error {
	set := config.NewSet("log dump")
	var dir string
	set.Group("Log", func(f *pflag.FlagSet) { f.StringVar(&dir, "data-dir", "", "data directory of a stopped node") })
	outcome, err := set.Parse(src)
	switch {
	case err != nil:
		return err
	case outcome.Help:
		return set.WriteHelp(stdout)
	case dir == "":
		return failure.New(failure.Config, "--data-dir is empty: say whose log to dump")
	}
	encoder := json.NewEncoder(stdout)
	err = wal.Dump(vfs.OS{}, filepath.Join(dir, "member", "log"), func(record wal.Record) error {
		if record.Kind != wal.RecordEntry {
			return nil
		}
		line, err := dumpEntry(record.Entry)
		if err != nil {
			return err
		}
		return encoder.Encode(line)
	})
	var damage *wal.DamageError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.New(failure.Config, fmt.Sprintf("%s holds no raft log: mend --data-dir", dir))
	case errors.As(err, &damage):
		return failure.Wrap(failure.Storage, "the raft log is damaged", err)
	}
	return err
}

func dumpEntry(entry *raftpb.Entry) (dumped, error) {
	line := dumped{Index: entry.GetIndex(), Term: entry.GetTerm(), Type: entry.GetType().String()}
	if entry.GetType() != raftpb.EntryNormal || len(entry.GetData()) == 0 {
		return line, nil
	}
	commands := &journalv1.Entry{}
	if err := commands.UnmarshalVT(entry.GetData()); err != nil {
		return line, fmt.Errorf("entry %d is not readable: %w", entry.GetIndex(), err)
	}
	for _, command := range commands.GetCommands() {
		request, err := dumpCommand(command)
		if err != nil {
			return line, fmt.Errorf("entry %d: %w", entry.GetIndex(), err)
		}
		line.Requests = append(line.Requests, request)
	}
	return line, nil
}

// dumpCommand shows a command with its etcd request decoded.
func dumpCommand(command *journalv1.Command) (json.RawMessage, error) {
	kind, request, data := "", proto.Message(nil), []byte(nil)
	switch c := command.GetCommand().(type) {
	case *journalv1.Command_Put:
		kind, request, data = "put", &pb.PutRequest{}, c.Put
	case *journalv1.Command_DeleteRange:
		kind, request, data = "deleteRange", &pb.DeleteRangeRequest{}, c.DeleteRange
	case *journalv1.Command_Txn:
		kind, request, data = "txn", &pb.TxnRequest{}, c.Txn
	case *journalv1.Command_Compact:
		kind, request, data = "compact", &pb.CompactionRequest{}, c.Compact
	case *journalv1.Command_LeaseGrant:
		kind, request, data = "leaseGrant", &pb.LeaseGrantRequest{}, c.LeaseGrant
	case *journalv1.Command_LeaseRevoke:
		kind, request, data = "leaseRevoke", &pb.LeaseRevokeRequest{}, c.LeaseRevoke
	case *journalv1.Command_Alarm:
		kind, request, data = "alarm", &pb.AlarmRequest{}, c.Alarm
	default:
		return protojson.Marshal(command)
	}
	if err := proto.Unmarshal(data, request); err != nil {
		return nil, fmt.Errorf("request of command %x is not readable: %w", command.GetId(), err)
	}
	shown, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"id": fmt.Sprintf("%x", command.GetId()), kind: json.RawMessage(shown)})
}
