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
	return dumpLog(dir, stdout)
}

func dumpLog(dir string, stdout io.Writer) (err error) {
	logDir := filepath.Join(dir, "member", "log")
	lock, err := wal.LockStopped(vfs.OS{}, logDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.New(failure.Config, fmt.Sprintf("%s holds no raft log: mend --data-dir", dir))
	case errors.Is(err, vfs.ErrLocked):
		return failure.New(failure.Config, fmt.Sprintf("%s is in use by a running node: stop it first", dir))
	case err != nil:
		return failure.Wrap(failure.Config, "the raft log in "+dir+" cannot be read: mend its permissions", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	encoder := json.NewEncoder(stdout)
	err = wal.Dump(vfs.OS{}, logDir, func(record wal.Record) error {
		if record.Kind != wal.RecordEntry {
			return nil
		}
		line, err := dumpEntry(record.Entry)
		if err != nil {
			return err
		}
		return encoder.Encode(line)
	})
	if _, ok := errors.AsType[*wal.DamageError](err); ok {
		return failure.Wrap(failure.Storage, "the raft log is damaged", err)
	}
	return err
}

func dumpEntry(entry *raftpb.Entry) (dumped, error) {
	line := dumped{Index: entry.GetIndex(), Term: entry.GetTerm(), Type: entry.GetType().String()}
	if len(entry.GetData()) == 0 {
		return line, nil
	}
	if entry.GetType() != raftpb.EntryNormal {
		request, err := dumpConfChange(entry)
		line.Requests = []json.RawMessage{request}
		return line, err
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

// dumpConfChange shows a membership change of either version, with what it says of the member.
func dumpConfChange(entry *raftpb.Entry) (json.RawMessage, error) {
	type change struct {
		Type   string `json:"type"`
		NodeID string `json:"nodeId"`
	}
	var cc raftpb.ConfChangeI
	var v1 raftpb.ConfChange
	var v2 raftpb.ConfChangeV2
	var err error
	if entry.GetType() == raftpb.EntryConfChange {
		cc, err = &v1, proto.Unmarshal(entry.GetData(), &v1)
	} else {
		cc, err = &v2, proto.Unmarshal(entry.GetData(), &v2)
	}
	if err != nil {
		return nil, fmt.Errorf("membership change %d is not readable: %w", entry.GetIndex(), err)
	}
	all := cc.AsV2()
	changes := []change{}
	for _, c := range all.GetChanges() {
		changes = append(changes, change{c.GetType().String(), fmt.Sprintf("%x", c.GetNodeId())})
	}
	shown := map[string]any{"changes": changes}
	if len(all.GetContext()) > 0 {
		member := &journalv1.MemberContext{}
		if err := member.UnmarshalVT(all.GetContext()); err != nil {
			return nil, fmt.Errorf("the member of membership change %d is not readable: %w", entry.GetIndex(), err)
		}
		text, err := protojson.Marshal(member)
		if err != nil {
			return nil, err
		}
		shown["member"] = json.RawMessage(text)
	}
	return json.Marshal(map[string]any{"confChange": shown})
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
