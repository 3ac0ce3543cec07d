package apply

import journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"

// Op is the kind of a command.
type Op int

// The kinds of commands.
const (
	OpPut Op = iota
	OpDeleteRange
	OpTxn
	OpCompaction
	OpLeaseGrant
	OpLeaseRevoke
	OpLeaseExpire
	OpLeaseCheckpoint
	OpLeaseView
	OpAlarm
	OpMemberAttributes
	OpClusterVersion
	// Ops is how many there are.
	Ops
)

// String is etcd's name of the kind, where etcd has it.
func (o Op) String() string {
	return [Ops]string{
		OpPut: "Put", OpDeleteRange: "DeleteRange", OpTxn: "Txn", OpCompaction: "Compaction", OpLeaseGrant: "LeaseGrant",
		OpLeaseRevoke: "LeaseRevoke", OpLeaseExpire: "LeaseExpire", OpLeaseCheckpoint: "LeaseCheckpoint", OpLeaseView: "LeaseView",
		OpAlarm: "Alarm", OpMemberAttributes: "ClusterMemberAttrSet", OpClusterVersion: "ClusterVersionSet",
	}[o]
}

// opOf gives the kind of a command that is known.
func opOf(c *journalv1.Command) Op {
	switch c.GetCommand().(type) {
	case *journalv1.Command_DeleteRange:
		return OpDeleteRange
	case *journalv1.Command_Txn:
		return OpTxn
	case *journalv1.Command_Compact:
		return OpCompaction
	case *journalv1.Command_LeaseGrant:
		return OpLeaseGrant
	case *journalv1.Command_LeaseRevoke:
		return OpLeaseRevoke
	case *journalv1.Command_LeaseExpire:
		return OpLeaseExpire
	case *journalv1.Command_LeaseCheckpoint:
		return OpLeaseCheckpoint
	case *journalv1.Command_ViewChange:
		return OpLeaseView
	case *journalv1.Command_Alarm:
		return OpAlarm
	case *journalv1.Command_MemberAttributes:
		return OpMemberAttributes
	case *journalv1.Command_ClusterVersion:
		return OpClusterVersion
	default:
		return OpPut
	}
}
