package failure

// Kind says what went wrong, as far as anybody acts on it.
type Kind uint8

// The kinds. Those with a gRPC error of etcd's are named for it.
const (
	// Internal is a bug or an unforeseen error: whatever has no other kind.
	Internal Kind = iota
	// InvalidArgument is a request that can never succeed. Its Text is written for the client and goes out.
	InvalidArgument
	// NotFound is a thing the client named that does not exist. Its Text goes out.
	NotFound
	// Unimplemented is a call or option that Holdfast does not have yet. Its Text goes out.
	Unimplemented
	// Unavailable is a part that cannot be reached now; a later try may succeed. Its Text goes out.
	Unavailable
	// ResourceExhausted is a bound of this process (per connection, stream or queue) that the caller ran into. Its
	// Text goes out.
	ResourceExhausted
	// Canceled is a caller that went away.
	Canceled
	// DeadlineExceeded is a caller's deadline that passed.
	DeadlineExceeded
	// EmptyKey is a request without a key.
	EmptyKey
	// KeyNotFound is a put that keeps the value or lease of a key that does not exist.
	KeyNotFound
	// ValueProvided is a put that gives a value and asks to keep the old one.
	ValueProvided
	// LeaseProvided is a put that gives a lease and asks to keep the old one.
	LeaseProvided
	// TooManyOps is a transaction with more operations than allowed.
	TooManyOps
	// DuplicateKey is a transaction that puts one key twice.
	DuplicateKey
	// InvalidSortOption is a range with an unknown sort order or target.
	InvalidSortOption
	// InvalidClientAPIVersion is a client that names an API version that is not one.
	InvalidClientAPIVersion
	// RequestTooLarge is a request over the size limit.
	RequestTooLarge
	// Compacted is a revision that compaction has removed.
	Compacted
	// FutureRevision is a revision that does not exist yet.
	FutureRevision
	// NoSpace is a database over its quota.
	NoSpace
	// LeaseNotFound is a lease that does not exist (any more).
	LeaseNotFound
	// LeaseExists is a lease granted under an id that is taken.
	LeaseExists
	// LeaseTTLTooLarge is a TTL over the limit.
	LeaseTTLTooLarge
	// WatchCanceled is a watch that its client ended.
	WatchCanceled
	// MemberExists is a member added under an id that is taken.
	MemberExists
	// PeerURLExists is a member added with a peer URL of another.
	PeerURLExists
	// MemberBadURLs is a member with URLs that are none.
	MemberBadURLs
	// MemberNotFound is a member id that is not in the cluster.
	MemberNotFound
	// MemberNotLearner is a promotion of a member that votes already.
	MemberNotLearner
	// MemberNotEnoughStarted is a change of membership that would lose the quorum.
	MemberNotEnoughStarted
	// LearnerNotReady is a promotion of a learner that lags.
	LearnerNotReady
	// TooManyLearners is a learner over the limit.
	TooManyLearners
	// NotSupportedForLearner is a call that a learner does not serve.
	NotSupportedForLearner
	// BadLeaderTransferee is a leadership move to a member that cannot lead.
	BadLeaderTransferee
	// ClusterIDMismatch is a node, client or data directory of another cluster.
	ClusterIDMismatch
	// TooManyRequests is back-pressure: apply or the log is behind. The request was not proposed.
	TooManyRequests
	// NoLeader is a cluster without a leader.
	NoLeader
	// NotLeader is a call for the leader that reached another node. The request was not proposed.
	NotLeader
	// LeaderChanged is a wait that a change of leader ended.
	LeaderChanged
	// Stopped is a server that is shutting down.
	Stopped
	// Timeout is a request that consensus did not answer in time; whether it took effect is unknown.
	Timeout
	// TimeoutLeaderFailed is Timeout, where the leader was lost meanwhile.
	TimeoutLeaderFailed
	// TimeoutConnectionLost is Timeout, where the leader had no connection to a quorum.
	TimeoutConnectionLost
	// TimeoutAppliedIndex is a read that waited too long for this node to catch up.
	TimeoutAppliedIndex
	// RequestCanceled is a client that went away while its request waited for consensus.
	RequestCanceled
	// Unhealthy is a cluster that cannot take the change of membership now.
	Unhealthy
	// NotCapable is a feature that the cluster's version does not allow.
	NotCapable
	// Corrupt is a node whose data disagrees with the cluster's.
	Corrupt
	// AuthNotEnabled is an authentication while authentication is off.
	AuthNotEnabled
	// PermissionDenied is a call that the user may not make.
	PermissionDenied
	// InvalidAuthToken is a token that is unknown or ran out.
	InvalidAuthToken
	// AuthOldRevision is a check made under an older auth revision than the one at apply.
	AuthOldRevision
	// Config is bad input or configuration at start: a flag, a URL, a data directory of another. Its Text is one
	// line that says what and how to mend it. Ends the process with code 1; never a client's error.
	Config
	// Storage is a failed write or fsync, or corruption on disk. The process must end (code 2), because what the
	// disk holds is unknown.
	Storage
	// Removed is this member being removed from the cluster. The process ends with code 3.
	Removed

	kinds // the number of kinds
)
