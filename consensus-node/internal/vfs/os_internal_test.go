//go:build unix

package vfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWriteZeros is the way of file systems that cannot reserve blocks: it keeps what is there and reaches the asked length.
func TestWriteZeros(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	_, err = f.WriteString("abc")
	require.NoError(t, err)
	const size = 3<<20 + 5
	require.NoError(t, writeZeros(f, 3, size))
	content, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, append([]byte("abc"), make([]byte, size-3)...), content)
}

// TestMkdirAllOverFile: a file where the directory should be is said to be one.
func TestMkdirAllOverFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	require.ErrorContains(t, OS{}.MkdirAll(name), "not a directory")
	require.Error(t, OS{}.MkdirAll(filepath.Join(name, "sub")))
}
