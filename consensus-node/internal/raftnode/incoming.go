package raftnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	incomingPrefix = "incoming-"
	incomingSuffix = ".db"
	// PartialSuffix ends the names of images that are still being received.
	PartialSuffix = ".partial"
)

// IncomingImage is the name in dir of the received image of index. At the start, a database that is behind the log's mark is replaced by the
// image that bears the mark's index: the node ended between marking its log and installing the image.
func IncomingImage(dir string, index uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%016x%s", incomingPrefix, index, incomingSuffix))
}

// RemoveIncoming removes received and partly received images from dir. It is for the start, after an image that is needed has been
// put in its place. A missing dir holds none.
func RemoveIncoming(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove received images: %w", err)
	}
	for _, e := range names {
		name := e.Name()
		image := strings.HasSuffix(name, incomingSuffix) || strings.HasSuffix(name, PartialSuffix)
		if !strings.HasPrefix(name, incomingPrefix) || !image || e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove received images: %w", err)
		}
	}
	return nil
}

// PartialPattern is the os.CreateTemp pattern for an image while it is received.
const PartialPattern = incomingPrefix + "*" + PartialSuffix
