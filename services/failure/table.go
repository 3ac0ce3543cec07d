package failure

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
)

// row is one kind as the world sees it.
type row struct {
	name string
	// etcd is the error that goes out as it is. Where it is nil, code goes out with the Error's own text, which is
	// written for clients; where both are zero the error is internal.
	etcd error
	code codes.Code
}

// table is the one mapping from kinds to what goes out. It is indexed by Kind and never changes.
var table = [kinds]row{
	Internal:                {name: "internal"},
	InvalidArgument:         {name: "invalid argument", code: codes.InvalidArgument},
	NotFound:                {name: "not found", code: codes.NotFound},
	Unimplemented:           {name: "unimplemented", code: codes.Unimplemented},
	Unavailable:             {name: "unavailable", code: codes.Unavailable},
	ResourceExhausted:       {name: "resource exhausted", code: codes.ResourceExhausted},
	Canceled:                {name: "canceled", code: codes.Canceled},
	DeadlineExceeded:        {name: "deadline exceeded", code: codes.DeadlineExceeded},
	EmptyKey:                {name: "empty key", etcd: rpctypes.ErrGRPCEmptyKey},
	KeyNotFound:             {name: "key not found", etcd: rpctypes.ErrGRPCKeyNotFound},
	ValueProvided:           {name: "value provided", etcd: rpctypes.ErrGRPCValueProvided},
	LeaseProvided:           {name: "lease provided", etcd: rpctypes.ErrGRPCLeaseProvided},
	TooManyOps:              {name: "too many ops", etcd: rpctypes.ErrGRPCTooManyOps},
	DuplicateKey:            {name: "duplicate key", etcd: rpctypes.ErrGRPCDuplicateKey},
	InvalidSortOption:       {name: "invalid sort option", etcd: rpctypes.ErrGRPCInvalidSortOption},
	InvalidClientAPIVersion: {name: "invalid client api version", etcd: rpctypes.ErrGRPCInvalidClientAPIVersion},
	RequestTooLarge:         {name: "request too large", etcd: rpctypes.ErrGRPCRequestTooLarge},
	Compacted:               {name: "compacted", etcd: rpctypes.ErrGRPCCompacted},
	FutureRevision:          {name: "future revision", etcd: rpctypes.ErrGRPCFutureRev},
	NoSpace:                 {name: "no space", etcd: rpctypes.ErrGRPCNoSpace},
	LeaseNotFound:           {name: "lease not found", etcd: rpctypes.ErrGRPCLeaseNotFound},
	LeaseExists:             {name: "lease exists", etcd: rpctypes.ErrGRPCLeaseExist},
	LeaseTTLTooLarge:        {name: "lease ttl too large", etcd: rpctypes.ErrGRPCLeaseTTLTooLarge},
	WatchCanceled:           {name: "watch canceled", etcd: rpctypes.ErrGRPCWatchCanceled},
	MemberExists:            {name: "member exists", etcd: rpctypes.ErrGRPCMemberExist},
	PeerURLExists:           {name: "peer url exists", etcd: rpctypes.ErrGRPCPeerURLExist},
	MemberBadURLs:           {name: "member bad ur ls", etcd: rpctypes.ErrGRPCMemberBadURLs},
	MemberNotFound:          {name: "member not found", etcd: rpctypes.ErrGRPCMemberNotFound},
	MemberNotLearner:        {name: "member not learner", etcd: rpctypes.ErrGRPCMemberNotLearner},
	MemberNotEnoughStarted:  {name: "member not enough started", etcd: rpctypes.ErrGRPCMemberNotEnoughStarted},
	LearnerNotReady:         {name: "learner not ready", etcd: rpctypes.ErrGRPCLearnerNotReady},
	TooManyLearners:         {name: "too many learners", etcd: rpctypes.ErrGRPCTooManyLearners},
	NotSupportedForLearner:  {name: "not supported for learner", etcd: rpctypes.ErrGRPCNotSupportedForLearner},
	BadLeaderTransferee:     {name: "bad leader transferee", etcd: rpctypes.ErrGRPCBadLeaderTransferee},
	ClusterIDMismatch:       {name: "cluster id mismatch", etcd: rpctypes.ErrGRPCClusterIDMismatch},
	TooManyRequests:         {name: "too many requests", etcd: rpctypes.ErrGRPCRequestTooManyRequests},
	NoLeader:                {name: "no leader", etcd: rpctypes.ErrGRPCNoLeader},
	NotLeader:               {name: "not leader", etcd: rpctypes.ErrGRPCNotLeader},
	LeaderChanged:           {name: "leader changed", etcd: rpctypes.ErrGRPCLeaderChanged},
	Stopped:                 {name: "stopped", etcd: rpctypes.ErrGRPCStopped},
	Timeout:                 {name: "timeout", etcd: rpctypes.ErrGRPCTimeout},
	TimeoutLeaderFailed:     {name: "timeout leader failed", etcd: rpctypes.ErrGRPCTimeoutDueToLeaderFail},
	TimeoutConnectionLost:   {name: "timeout connection lost", etcd: rpctypes.ErrGRPCTimeoutDueToConnectionLost},
	TimeoutAppliedIndex:     {name: "timeout applied index", etcd: rpctypes.ErrGRPCTimeoutWaitAppliedIndex},
	RequestCanceled:         {name: "request canceled", etcd: rpctypes.ErrGRPCCanceled},
	Unhealthy:               {name: "unhealthy", etcd: rpctypes.ErrGRPCUnhealthy},
	NotCapable:              {name: "not capable", etcd: rpctypes.ErrGRPCNotCapable},
	Corrupt:                 {name: "corrupt", etcd: rpctypes.ErrGRPCCorrupt},
	AuthNotEnabled:          {name: "auth not enabled", etcd: rpctypes.ErrGRPCAuthNotEnabled},
	PermissionDenied:        {name: "permission denied", etcd: rpctypes.ErrGRPCPermissionDenied},
	InvalidAuthToken:        {name: "invalid auth token", etcd: rpctypes.ErrGRPCInvalidAuthToken},
	AuthOldRevision:         {name: "auth old revision", etcd: rpctypes.ErrGRPCAuthOldRevision},
	Config:                  {name: "config"},
	Storage:                 {name: "storage"},
	Removed:                 {name: "removed"},
}

// String is the kind in words.
func (k Kind) String() string {
	if k >= kinds {
		return "unknown kind"
	}
	return table[k].name
}
