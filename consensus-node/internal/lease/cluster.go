package lease

import (
	"cmp"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

// What lease-services get to hear; clients of etcd's API never do.
var (
	// ErrEpoch says that the view has moved on: read it and decide anew.
	ErrEpoch = status.Error(codes.FailedPrecondition, "holdfast: the lease view has another epoch")
	// ErrNotOwner says that the speaker does not own the lease under the
	// present view.
	ErrNotOwner = status.Error(codes.FailedPrecondition, "holdfast: not the owner of the lease under the present view")
	// ErrInstances refuses a view with a nameless instance, one without an
	// incarnation, or two of one name.
	ErrInstances = status.Error(codes.InvalidArgument, "holdfast: the instances of a lease view need a name each and an incarnation")
	// ErrRemaining refuses a checkpoint outside of the lease's TTL.
	ErrRemaining = status.Error(codes.InvalidArgument, "holdfast: the rest of a lease must lie between 0 and its TTL")
	// ErrLate refuses a checkpoint that was reckoned before the lease was
	// granted, or before its rest was last recorded or cleared.
	ErrLate = status.Error(codes.FailedPrecondition, "holdfast: the lease was granted or renewed after its rest was reckoned")
)

// ChangeView moves to the next epoch. The instances of the new view come from
// the request; who departed follows from the two views, and the request only
// says which of those released their leases: a departure can neither be
// forgotten nor invented. An instance that starts again departs with its old
// incarnation.
//
// Errors: ErrEpoch if the request starts from another epoch, ErrInstances.
func (t *Table) ChangeView(vc *journalv1.ViewChange) (*feedv1.LeaseChange, error) {
	if vc.GetFromEpoch() != t.cluster.Epoch {
		return nil, ErrEpoch
	}
	instances, err := sortedInstances(vc.GetInstances())
	if err != nil {
		return nil, err
	}
	view := &feedv1.View{
		Epoch:     t.cluster.Epoch + 1,
		Instances: instances,
		Departed:  departed(t.cluster.Instances, instances, vc.GetDeparted()),
	}
	change := &feedv1.LeaseChange{Sequence: t.next(), Change: &feedv1.LeaseChange_View{View: view}}
	t.setCluster(view)
	return change, nil
}

// setCluster puts a view in place that nobody changes any more.
func (t *Table) setCluster(view *feedv1.View) {
	t.cluster = view
	names := make([]string, len(view.GetInstances()))
	for i, instance := range view.GetInstances() {
		names[i] = instance.GetName()
	}
	t.owners = rendezvous.New(names)
}

// sortedInstances returns copies in the order of names.
func sortedInstances(in []*feedv1.Instance) ([]*feedv1.Instance, error) {
	out := make([]*feedv1.Instance, len(in))
	for i, instance := range in {
		if instance.GetName() == "" || instance.GetIncarnation() == 0 {
			return nil, ErrInstances
		}
		out[i] = &feedv1.Instance{
			Name: instance.GetName(), Incarnation: instance.GetIncarnation(), Address: instance.GetAddress(),
		}
	}
	slices.SortFunc(out, func(a, b *feedv1.Instance) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(out); i++ {
		if out[i].Name == out[i-1].Name {
			return nil, ErrInstances
		}
	}
	return out, nil
}

// departed lists, in the order of names, the incarnations of before that are
// not in after.
func departed(before, after []*feedv1.Instance, said []*feedv1.Departed) []*feedv1.Departed {
	var out []*feedv1.Departed
	for _, old := range before {
		stays := slices.ContainsFunc(after, func(i *feedv1.Instance) bool {
			return i.Name == old.Name && i.Incarnation == old.Incarnation
		})
		if stays {
			continue
		}
		released := slices.ContainsFunc(said, func(d *feedv1.Departed) bool {
			return d.GetReleased() && d.GetName() == old.Name && d.GetIncarnation() == old.Incarnation
		})
		out = append(out, &feedv1.Departed{Name: old.Name, Incarnation: old.Incarnation, Released: released})
	}
	return out
}
