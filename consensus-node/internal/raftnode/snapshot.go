package raftnode

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// snapshotSendersMax bounds the images open for sending: each holds back the reuse of the database's pages.
const snapshotSendersMax = 2

// An image that did not arrive is sent again after a pause that doubles from the least to the most: it may be large, and what made it
// fail may last.
const snapshotPauseLeast, snapshotPauseMost = 500 * time.Millisecond, 30 * time.Second

// nothingHeld stands for the index of an image while the next attempt to send one waits: the log is not kept for it.
const nothingHeld = math.MaxUint64

// receivedSnapshot is an image on its way into the node.
type receivedSnapshot struct {
	msg      *raftpb.Message
	path     string
	offered  bool // raft has seen it
	accepted bool // raft wants it installed; the file is the node's
	answer   chan error
}

// ReceiveSnapshot offers raft the image at path that m, a MsgSnap, names. The image is verified, durable, and bears the name that
// [IncomingImage] gives for its index. It returns nil once the image is the state of this node, for then the file is gone; an error
// that is [ErrSnapshotRefused] if raft has no use for it, and the file is still the caller's; [ErrStopped] if the node ended
// meanwhile, and the file must stay where it is, for the next start may need it.
func (n *Node) ReceiveSnapshot(ctx context.Context, m *raftpb.Message, path string) error {
	s, err := n.newReceived(m, path)
	if err != nil {
		return err
	}
	if err := n.step(SnapshotReceived); err != nil {
		return err
	}
	select {
	case n.received <- s:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrSnapshotRefused, ctx.Err())
	case <-n.done:
		return fmt.Errorf("%w: %w", ErrSnapshotRefused, ErrStopped)
	}
	select { // no leaving with the context: the file may be in use
	case err := <-s.answer:
		return err
	case <-n.done:
		return ErrStopped
	}
}

// newReceived checks what was received.
func (n *Node) newReceived(m *raftpb.Message, path string) (*receivedSnapshot, error) {
	meta := m.GetSnapshot().GetMetadata()
	switch {
	case m.GetType() != raftpb.MsgSnap || m.GetTo() != n.cfg.ID || m.GetFrom() == 0 || m.GetTerm() == 0:
		return nil, fmt.Errorf("%w: not a snapshot message for this member", ErrSnapshotRefused)
	case meta.GetIndex() == 0 || meta.GetTerm() == 0 || len(meta.GetConfState().GetVoters()) == 0:
		return nil, fmt.Errorf("%w: its index, term or membership is missing", ErrSnapshotRefused)
	}
	return &receivedSnapshot{msg: m, path: path, answer: make(chan error, 1)}, nil
}

// stepSnapshot takes in a snapshot, one at a time.
func (n *Node) stepSnapshot(s *receivedSnapshot) {
	if n.loop.incoming != nil {
		s.answer <- ErrSnapshotBusy
		return
	}
	n.loop.incoming = s
}

// offerSnapshot gives raft the snapshot that was received; whether raft wants it shows in the next Ready. It waits until all that is
// committed is applied: raft takes over the membership of a snapshot at once, and an older change of members that is applied after that
// would be made to the newer membership.
func (n *Node) offerSnapshot() bool {
	s := n.loop.incoming
	if s == nil || s.offered {
		return false
	}
	if st := n.raw.BasicStatus(); st.Applied < st.GetCommit() {
		return false
	}
	s.offered = true
	_ = n.raw.Step(s.msg)
	return true
}

// acceptSnapshot notes that raft wants the snapshot it was offered.
func (n *Node) acceptSnapshot(snap *raftpb.Snapshot) {
	if s := n.loop.incoming; s != nil && !raft.IsEmptySnap(snap) {
		s.accepted = true
	}
}

// settleSnapshot gives back a snapshot that raft did not want.
func (n *Node) settleSnapshot() {
	if s := n.loop.incoming; s != nil && s.offered && !s.accepted && !n.raw.HasReady() {
		s.answer <- ErrSnapshotIgnored
		n.loop.incoming = nil
	}
}

// snapshotDone is told that raft has heard of the installation.
func (n *Node) snapshotDone() {
	if s := n.loop.incoming; s != nil && s.accepted {
		s.answer <- nil
		n.loop.incoming = nil
	}
}

// installSnapshot makes the log begin after the snapshot and has the apply goroutine make the image the state. It is the append
// goroutine's. The mark comes first: a database beyond its log means a lost log and refuses to start, while an image that waits beside the
// database is installed then.
func (n *Node) installSnapshot(meta *raftpb.SnapshotMetadata, s *receivedSnapshot) (*installWork, error) {
	if s == nil {
		return nil, errors.New("raft accepted a snapshot without an image")
	}
	began := time.Now()
	if err := n.cfg.Log.MarkSnapshot(snapshotMark(meta)); err != nil {
		return nil, err
	}
	if err := n.step(SnapshotMarked); err != nil {
		return nil, err
	}
	w := &installWork{meta: meta, path: s.path, done: make(chan struct{}), began: began}
	select {
	case n.applyQ <- applyWork{install: w}:
	case <-n.ctx.Done():
		return nil, n.ctx.Err()
	}
	return w, nil
}

func snapshotMark(meta *raftpb.SnapshotMetadata) wal.SnapshotMark {
	return wal.SnapshotMark{Index: meta.GetIndex(), Term: meta.GetTerm(), ConfState: meta.GetConfState()}
}

// awaitInstall waits until the image is the state.
func (n *Node) awaitInstall(w *installWork) error {
	select {
	case <-w.done:
		return nil
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}

// step tells the hook of a step of an installation.
func (n *Node) step(s SnapshotStep) error {
	if n.cfg.Hooks.Snapshot == nil {
		return nil
	}
	return n.cfg.Hooks.Snapshot(s)
}

// sendSnapshot starts to send an image to the member that raft's message is for.
func (n *Node) sendSnapshot(m *raftpb.Message) {
	to, sending := m.GetTo(), n.loop.sending
	if _, busy := sending[to]; busy || len(sending) >= snapshotSendersMax {
		n.raw.ReportSnapshot(to, raft.SnapshotFailure) // raft asks again after a heartbeat
		return
	}
	sending[to] = 0
	if n.stepper != nil {
		n.stepper.images = append(n.stepper.images, &Sending{s: n.stepper, raft: m})
		return
	}
	if n.loop.leading == nil {
		n.loop.leading, n.loop.depose = context.WithCancel(n.ctx)
	}
	leading := n.loop.leading
	n.senders.Go(func() {
		err := n.sendImage(leading, m)
		if err != nil && leading.Err() == nil {
			n.pauseSending(leading, to, err)
		}
		n.reportSent(to, err)
	})
}

// pauseSending waits after a failure, of which raft is told only then: it asks for the next attempt at once.
func (n *Node) pauseSending(leading context.Context, to uint64, failure error) {
	var pause time.Duration
	_ = n.do(leading, func() {
		n.loop.failures[to]++
		pause = snapshotPause(n.loop.failures[to])
		n.loop.sending[to] = nothingHeld
	})
	n.cfg.Logger.Warn("snapshot not sent", "member", fmt.Sprintf("%x", to), "error", failure, "again_after", pause.String())
	select {
	case <-time.After(pause):
	case <-leading.Done():
	}
}

// reportSent tells raft what came of sending an image to a member.
func (n *Node) reportSent(to uint64, err error) {
	outcome := raft.SnapshotFinish
	if err != nil {
		outcome = raft.SnapshotFailure
	}
	_ = n.do(n.ctx, func() {
		delete(n.loop.sending, to)
		if err == nil {
			delete(n.loop.failures, to)
		}
		n.raw.ReportSnapshot(to, outcome)
	})
}

// snapshotPause is how long to wait after so many failures in a row.
func snapshotPause(failures int) time.Duration {
	pause := snapshotPauseLeast
	for ; failures > 1 && pause < snapshotPauseMost; failures-- {
		pause *= 2
	}
	return min(pause, snapshotPauseMost)
}

// endSends cancels the images under way once this node no longer leads: nobody would take them, and they would hold up those of the
// next leader.
func (n *Node) endSends() {
	if n.loop.leading != nil {
		n.loop.depose()
		n.loop.leading, n.loop.depose = nil, nil
		clear(n.loop.failures)
	}
}

// sendImage opens an image and sends it under its own index, term and membership.
func (n *Node) sendImage(ctx context.Context, m *raftpb.Message) (err error) {
	own, img, err := n.openImage(ctx, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	began, member, index := time.Now(), fmt.Sprintf("%x", m.GetTo()), own.GetSnapshot().GetMetadata().GetIndex()
	n.cfg.Logger.Info("sending a snapshot", "member", member, "index", index, "bytes", img.Size())
	if err := n.cfg.Transport.SendSnapshot(ctx, own, img); err != nil {
		return err
	}
	n.cfg.Logger.Info("snapshot sent", "member", member, "index", index, "took", time.Since(began).String())
	return nil
}

// openImage opens an image in answer to m, a MsgSnap of raft's, and says what it is sent with. The caller closes it.
func (n *Node) openImage(ctx context.Context, m *raftpb.Message) (*raftpb.Message, Image, error) {
	img, err := n.cfg.Applier.Image(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("open an image of the database: %w", err)
	}
	meta := img.Metadata()
	if err := n.do(ctx, func() { n.loop.sending[m.GetTo()] = meta.GetIndex() }); err != nil {
		return nil, nil, errors.Join(err, img.Close())
	}
	own := &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), To: m.To, From: m.From, Term: m.Term,
		Snapshot: &raftpb.Snapshot{Metadata: meta},
	}
	return own, img, nil
}
