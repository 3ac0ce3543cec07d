package store

import (
	"context"
	"errors"
	"fmt"
)

// Flush returns when all that was applied before the call is durable, which it
// brings about at once. Errors: that of ctx, ErrClosed, what ended the Store.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosed
	}
	return s.flush(ctx)
}

func (s *Store) flush(ctx context.Context) error {
	target := s.seq
	s.urgent = max(s.urgent, target)
	s.wake()
	for s.done < target {
		if s.err != nil {
			return s.err
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return fmt.Errorf("flush: %w", ctx.Err())
		}
	}
	return s.err
}

// Close commits what is pending and closes the file once all Readers and
// Images are closed, for which it waits. If ctx ends first, its error is
// returned, and Close may be called again to wait on. The Store takes nothing
// any more from the first call on.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.broadcast()
	err := s.flush(ctx)
	unfinished := s.err == nil && s.done < s.seq
	s.mu.Unlock()
	if unfinished {
		return err // ctx has ended
	}
	s.wake()
	<-s.stopped // nothing is left to commit, or it has failed
	select {
	case s.copying <- struct{}{}: // a Defragment has ended, or will before it begins
		<-s.copying
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("close: the file is being copied: %w", ctx.Err()))
	}
	f := s.letGo()
	select {
	case <-f.closed:
		return errors.Join(err, f.err)
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("close: readers are open: %w", ctx.Err()))
	}
}

// letGo ends new Readers and gives the Store's own references back, once.
func (s *Store) letGo() *file {
	s.commitMu.Lock() // an install that has begun ends first
	defer s.commitMu.Unlock()
	s.mu.Lock()
	b, f := s.base, s.file
	s.base = nil
	s.view.Store(nil)
	s.mu.Unlock()
	if b != nil {
		b.release()
		f.release()
	}
	return f
}
