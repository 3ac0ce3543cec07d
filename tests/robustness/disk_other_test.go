//go:build !linux

package robustness

import "testing"

type disk struct{}

func mountDisk(t *testing.T, _ string) *disk {
	t.Helper()
	leftOut(t, "the full disk. It needs a tmpfs, which only Linux has")
	return nil
}

func (d *disk) fill(*testing.T) {}
func (d *disk) free(*testing.T) {}
