//go:build !linux

package store

// forgetPages would give back the memory of pages that were read.
func (f *file) forgetPages() {}
