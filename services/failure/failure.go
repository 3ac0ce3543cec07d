package failure

import (
	"context"
	"errors"
)

// Error is a failure of a known kind.
type Error struct {
	// Kind is what callers act on and what the edge maps.
	Kind Kind
	// Text says what failed, for the log; see Kind for the few kinds whose text goes out to clients. May be empty.
	Text string
	// Cause is the error behind this one, or nil. It never goes out.
	Cause error
}

// New makes an error of a kind. An empty text is fine where the kind says all.
func New(kind Kind, text string) *Error { return &Error{Kind: kind, Text: text} }

// Wrap makes an error of a kind with a cause, which errors.Is and errors.As still find.
func Wrap(kind Kind, text string, cause error) *Error {
	return &Error{Kind: kind, Text: text, Cause: cause}
}

// Error joins the text (or the kind's name) and the cause.
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = e.Kind.String()
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, failure.New(kind, "")) match any error of that kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Text == "" && t.Cause == nil && t.Kind == e.Kind
}

// KindOf is the kind of the outermost Error in err's chain; of an error that came from another service, the kind that
// was mapped there; of a context's error, Canceled or DeadlineExceeded; Internal for anything else. It is Internal for
// nil too: ask only about errors.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if kind, ok := kindOfStatus(err); ok {
		return kind
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	}
	return Internal
}

// Is tells whether err is an error of the kind. It is false for nil.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// FromWait gives the error for a request whose context ended while it waited for consensus, where etcd has errors of
// its own: "etcdserver: request timed out" (Unavailable) instead of DeadlineExceeded, and "etcdserver: request canceled"
// instead of the context's text. Other errors pass unchanged.
func FromWait(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return Wrap(RequestCanceled, "while waiting for consensus", err)
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(Timeout, "while waiting for consensus", err)
	}
	return err
}
