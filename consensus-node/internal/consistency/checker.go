package consistency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

// Cluster is what a Checker sees of its member and of the others.
type Cluster interface {
	// Self is this member's id.
	Self() uint64
	// Own hashes this member's key space at a revision; 0 means the newest.
	Own(revision int64) (Hash, error)
	// Now gives this member's newest revision and its compact revision.
	Now() (head, compact int64)
	// Others asks every other member for its hash at a revision, all at once; with wait each first waits to have that revision.
	Others(ctx context.Context, revision int64, wait bool) []Sample
	// Confirm returns nil once this member has proved that it leads and has applied everything committed before.
	Confirm(ctx context.Context) error
	// Raised tells whether the CORRUPT alarm of a member is raised.
	Raised(member uint64) bool
	// Raise raises it.
	Raise(ctx context.Context, member uint64) error
}

// Checker makes the comparisons.
type Checker struct {
	cluster Cluster
	log     *slog.Logger
	agreed  int64 // the last compact revision at which all members were seen to agree
}

// New makes a Checker.
func New(cluster Cluster, log *slog.Logger) *Checker { return &Checker{cluster: cluster, log: log} }

// DifferenceError says that this member's key space is not that of others.
type DifferenceError struct {
	Self              uint64
	Others            []uint64
	Revision, Compact int64
}

// Error implements error, on one line with the way out.
func (e *DifferenceError) Error() string {
	ids := make([]string, len(e.Others))
	for i, id := range e.Others {
		ids[i] = fmt.Sprintf("%x", id)
	}
	return fmt.Sprintf("member %x holds other keys or values than member %s at revision %d (compact revision %d): "+
		"remove the member that is wrong from the cluster, empty its data directory and add it again, or restore a snapshot on all members",
		e.Self, strings.Join(ids, ", "), e.Revision, e.Compact)
}

// Initial compares this member with the others as far as they can be compared now. A difference is a *DifferenceError; any other error
// means that this member's own data cannot be read.
func (c *Checker) Initial(ctx context.Context) error {
	own, err := c.cluster.Own(0)
	if err != nil {
		return fmt.Errorf("hashing the key space: %w", err)
	}
	self := Sample{Member: c.cluster.Self(), Hash: own}
	others := c.cluster.Others(ctx, own.Revision, false)
	found := &DifferenceError{Self: self.Member, Revision: own.Revision, Compact: own.Compact}
	for _, other := range others {
		c.note(self, other)
		if self.comparable(other) && other.Hash.Sum != own.Sum {
			found.Others = append(found.Others, other.Member)
		}
	}
	if len(found.Others) > 0 {
		return found
	}
	c.log.Info("initial corruption check found no difference", "revision", own.Revision, "members", len(others))
	return nil
}

// Compare compares all members at the leader's present revision.
func (c *Checker) Compare(ctx context.Context) error {
	if err := c.cluster.Confirm(ctx); err != nil {
		return err
	}
	own, err := c.cluster.Own(0)
	if err != nil {
		return err
	}
	_, err = c.compare(ctx, own)
	return err
}

// Compacted compares all members at the last compaction, unless they were seen to agree there already.
func (c *Checker) Compacted(ctx context.Context) error {
	if err := c.cluster.Confirm(ctx); err != nil {
		return err
	}
	own, err := c.cluster.Own(0)
	if err != nil || own.Compact <= 0 || own.Compact <= c.agreed {
		return err
	}
	compact := own.Compact
	if own, err = c.cluster.Own(compact); err != nil {
		return err
	}
	agreed, err := c.compare(ctx, own)
	if err == nil && agreed {
		c.agreed = max(c.agreed, compact)
	}
	return err
}

// compare asks the others at the revision of the leader's own hash, and accuses who differs. It tells whether all members were compared and
// agree.
func (c *Checker) compare(ctx context.Context, own Hash) (agreed bool, err error) {
	self := Sample{Member: c.cluster.Self(), Hash: own}
	others := c.cluster.Others(ctx, own.Revision, true)
	// What the others know must be known here by now: only then this round is judged, and by one who still leads.
	if err := c.cluster.Confirm(ctx); err != nil {
		return false, err
	}
	head, compact := c.cluster.Now()
	if compact != own.Compact { // the others may have answered on either side of the compaction
		if self.Hash, err = c.cluster.Own(own.Revision); errors.Is(err, rpctypes.ErrGRPCCompacted) {
			return false, nil // the next round will do
		} else if err != nil {
			return false, err
		}
	}
	for _, other := range others {
		c.note(self, other)
	}
	accused, compared := judge(self, others, len(others)+1)
	accused = append(accused, ahead(others, head, compact)...)
	slices.Sort(accused)
	for _, member := range slices.Compact(accused) {
		if c.cluster.Raised(member) {
			continue
		}
		c.log.Error("a member holds other keys or values than the others: the CORRUPT alarm is raised",
			"member", fmt.Sprintf("%x", member), "revision", own.Revision, "compact_revision", compact)
		if err := c.cluster.Raise(ctx, member); err != nil {
			return false, err
		}
	}
	c.log.Debug("members compared", "revision", own.Revision, "compared", compared, "members", len(others))
	return len(accused) == 0 && compared == len(others), nil
}

// note logs what one member said, if it differs or could not be compared.
func (c *Checker) note(self, other Sample) {
	log := c.log.With("member", fmt.Sprintf("%x", other.Member), "revision", self.Hash.Revision, "compact_revision", self.Hash.Compact)
	switch {
	case other.Err != nil:
		log.Warn("a member's hash could not be compared", "error", status.Convert(other.Err).Message())
	case !self.comparable(other):
		log.Warn("a member's hash could not be compared: it is compacted elsewhere", "its_compact_revision", other.Hash.Compact)
	case self.Hash.Sum != other.Hash.Sum:
		log.Error("a member's hash differs", "own_hash", self.Hash.Sum, "its_hash", other.Hash.Sum)
	}
}
