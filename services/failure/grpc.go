package failure

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// internalText is all that a client learns of an error that has no kind for clients.
const internalText = "internal error"

// ToGRPC is the error to send to a client for err; nil for nil.
//
// An error of a kind becomes what the table says. A gRPC status passes unchanged: it came from a peer that mapped it,
// or is one of rpctypes. A context's error becomes Canceled or DeadlineExceeded with the context's text, as a gRPC
// server makes it and as etcd answers; see FromWait for where etcd does otherwise. All else becomes Unknown "internal
// error"; Edge logs what that hides.
func ToGRPC(err error) error {
	_, out := toGRPC(err)
	return out
}

// toGRPC is ToGRPC, and whether err is internal, so that nothing of it goes out.
func toGRPC(err error) (internal bool, out error) {
	if err == nil {
		return false, nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.toGRPC()
	}
	if st, ok := statusOf(err); ok {
		return false, st.Err()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false, contextStatus(err)
	}
	return true, status.Error(codes.Unknown, internalText)
}

func (e *Error) toGRPC() (internal bool, out error) {
	if e.Kind >= kinds {
		return true, status.Error(codes.Unknown, internalText)
	}
	switch r := table[e.Kind]; {
	case r.etcd != nil:
		return false, r.etcd
	case e.Kind == Canceled:
		return false, contextStatus(context.Canceled)
	case e.Kind == DeadlineExceeded:
		return false, contextStatus(context.DeadlineExceeded)
	case r.code != codes.OK:
		text := e.Text
		if text == "" {
			text = r.name
		}
		return false, status.Error(r.code, text)
	}
	return true, status.Error(codes.Unknown, internalText)
}

// contextStatus drops what was wrapped around the context's error.
func contextStatus(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())
	}
	return status.Error(codes.Canceled, context.Canceled.Error())
}

// statusOf finds a gRPC status in err's chain, without the text that was wrapped around it: that text is ours.
func statusOf(err error) (*status.Status, bool) {
	var s interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &s) || s.GRPCStatus() == nil {
		return nil, false
	}
	return s.GRPCStatus(), true
}

// kindOfStatus reads the table backwards, so that a service can act on what another answered. An etcd error is known
// by its text, which is unique; a status of another text by its code.
func kindOfStatus(err error) (Kind, bool) {
	st, ok := statusOf(err)
	if !ok {
		return Internal, false
	}
	for k := range kinds {
		if etcd := table[k].etcd; etcd != nil && status.Convert(etcd).Message() == st.Message() {
			return k, true
		}
	}
	for k := range kinds {
		if table[k].etcd == nil && table[k].code == st.Code() {
			return k, true
		}
	}
	return Internal, true
}
