package failure_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/services/failure"
)

func TestToGRPC(t *testing.T) {
	secret := errors.New("/var/lib/secret: permission denied")
	cases := []struct {
		name string
		err  error
		want error
	}{
		{"etcd's text alone goes out", failure.Wrap(failure.NotLeader, "n2 leads", secret), rpctypes.ErrGRPCNotLeader},
		{
			"wrapped by fmt", fmt.Errorf("range: %w", failure.New(failure.Compacted, "")),
			rpctypes.ErrGRPCCompacted,
		},
		{
			"text for clients", failure.Wrap(failure.InvalidArgument, "bad filter", secret),
			status.Error(codes.InvalidArgument, "bad filter"),
		},
		{
			"no text for clients", failure.New(failure.Unavailable, ""),
			status.Error(codes.Unavailable, "unavailable"),
		},
		{"rpctypes passes", rpctypes.ErrGRPCEmptyKey, rpctypes.ErrGRPCEmptyKey},
		{
			"a wrapped status loses its wrapping", fmt.Errorf("from 10.0.0.7: %w", rpctypes.ErrGRPCNoLeader),
			rpctypes.ErrGRPCNoLeader,
		},
		{
			"a foreign status passes", status.Error(codes.DataLoss, "x"),
			status.Error(codes.DataLoss, "x"),
		},
		{
			"canceled", fmt.Errorf("in the queue: %w", context.Canceled),
			status.Error(codes.Canceled, "context canceled"),
		},
		{
			"deadline", fmt.Errorf("in the queue: %w", context.DeadlineExceeded),
			status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
		},
		{
			"canceled by kind", failure.New(failure.Canceled, "x"),
			status.Error(codes.Canceled, "context canceled"),
		},
		{"deadline while waiting", failure.FromWait(context.DeadlineExceeded), rpctypes.ErrGRPCTimeout},
		{"cancel while waiting", failure.FromWait(context.Canceled), rpctypes.ErrGRPCCanceled},
		{"others wait unchanged", failure.FromWait(rpctypes.ErrGRPCStopped), rpctypes.ErrGRPCStopped},
		{"plain", secret, status.Error(codes.Unknown, "internal error")},
		{
			"storage", failure.Wrap(failure.Storage, "fsync of log/7", secret),
			status.Error(codes.Unknown, "internal error"),
		},
		{"io.EOF", io.EOF, status.Error(codes.Unknown, "internal error")},
		{"kind out of range", failure.New(200, "?"), status.Error(codes.Unknown, "internal error")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want.Error(), failure.ToGRPC(c.err).Error())
		})
	}
	require.NoError(t, failure.ToGRPC(nil))
}

// TestEveryKind walks the whole table: each kind has a name, and one that clients see comes back as itself.
func TestEveryKind(t *testing.T) {
	names := map[string]bool{}
	inside := []failure.Kind{failure.Internal, failure.Config, failure.Storage, failure.Removed}
	for kind := failure.Internal; kind <= failure.Removed; kind++ {
		require.NotEmpty(t, kind.String())
		require.False(t, names[kind.String()], "%v is there twice", kind)
		names[kind.String()] = true
		var log bytes.Buffer
		edge := failure.Edge{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		out := edge.Map(t.Context(), "/x/Y", failure.New(kind, ""))
		if slices.Contains(inside, kind) {
			require.Equal(t, status.Error(codes.Unknown, "internal error").Error(), out.Error(), "%v", kind)
			require.NotEmpty(t, log.String(), "%v", kind)
			continue
		}
		require.Empty(t, log.String(), "%v", kind)
		require.Equal(t, kind, failure.KindOf(out), "%v", kind)
		require.Equal(t, kind, failure.KindOf(fmt.Errorf("wrapped: %w", out)), "%v", kind)
	}
	require.Equal(t, "unknown kind", (failure.Removed + 1).String())
}

func TestKindOf(t *testing.T) {
	require.Equal(t, failure.Internal, failure.KindOf(errors.New("x")))
	require.Equal(t, failure.Canceled, failure.KindOf(fmt.Errorf("x: %w", context.Canceled)))
	require.Equal(t, failure.DeadlineExceeded, failure.KindOf(context.DeadlineExceeded))
	require.Equal(t, failure.Unavailable, failure.KindOf(status.Error(codes.Unavailable, "connection refused")))
	require.Equal(t, failure.Internal, failure.KindOf(status.Error(codes.Aborted, "x")))
	require.False(t, failure.Is(nil, failure.Internal))
	outer := failure.Wrap(failure.NoLeader, "", failure.New(failure.Timeout, ""))
	require.True(t, failure.Is(outer, failure.NoLeader))
	require.ErrorIs(t, outer, failure.New(failure.Timeout, ""), "the cause is still found")
}

func TestExitCode(t *testing.T) {
	storage := failure.Wrap(failure.Storage, "fsync", io.ErrShortWrite)
	cases := map[int][]error{
		failure.ExitOK:    {nil},
		failure.ExitInput: {failure.New(failure.Config, "x"), errors.New("x"), failure.New(failure.NoLeader, "")},
		failure.ExitStorage: {
			storage, fmt.Errorf("node: %w", storage), failure.Wrap(failure.Config, "open", storage),
			errors.Join(errors.New("x"), storage), failure.New(failure.Corrupt, ""),
		},
		failure.ExitRemoved: {fmt.Errorf("node: %w", failure.New(failure.Removed, "by n2"))},
	}
	for want, errs := range cases {
		for _, err := range errs {
			require.Equal(t, want, failure.ExitCode(err), "%v", err)
		}
	}
}

func TestEdgeLogsWhatItKeepsBack(t *testing.T) {
	var log bytes.Buffer
	edge := failure.Edge{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	info := &grpc.UnaryServerInfo{FullMethod: "/x/Y"}
	fails := func(err error) grpc.UnaryHandler {
		return func(context.Context, any) (any, error) { return "made up", err }
	}

	resp, err := edge.Unary(t.Context(), nil, info, fails(errors.New("secret")))
	require.Nil(t, resp)
	require.Equal(t, status.Error(codes.Unknown, "internal error").Error(), err.Error())
	require.Contains(t, log.String(), "secret")
	require.Contains(t, log.String(), "/x/Y")

	log.Reset()
	_, err = edge.Unary(t.Context(), nil, info, fails(failure.New(failure.NoLeader, "")))
	require.ErrorIs(t, err, rpctypes.ErrGRPCNoLeader)
	require.Empty(t, log.String())

	resp, err = edge.Unary(t.Context(), nil, info, fails(nil))
	require.NoError(t, err)
	require.Equal(t, "made up", resp)
}

// brokenStream is a server stream that only knows its context.
type brokenStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s brokenStream) Context() context.Context { return s.ctx }

func TestEdgeMapsStreams(t *testing.T) {
	edge := failure.Edge{Logger: slog.New(slog.DiscardHandler)}
	info := &grpc.StreamServerInfo{FullMethod: "/x/Y"}
	run := func(result error) error {
		return edge.Stream(nil, brokenStream{ctx: t.Context()}, info, func(any, grpc.ServerStream) error { return result })
	}
	require.NoError(t, run(nil))
	require.ErrorIs(t, run(failure.New(failure.Compacted, "")), rpctypes.ErrGRPCCompacted)
	require.Equal(t, codes.Unknown, status.Code(run(errors.New("secret"))))
}
