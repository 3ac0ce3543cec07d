package member

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrVersion is wrapped by the errors for texts that are no version.
	ErrVersion = status.Error(codes.InvalidArgument, "holdfast: a cluster version looks like 3.7.0")
	// ErrDowngrade refuses to lower the cluster version.
	ErrDowngrade = status.Error(codes.FailedPrecondition, "holdfast: the cluster version cannot go down")
)

// Version is a cluster version; its patch level is always 0. The zero value
// means that none was agreed on yet.
type Version struct{ Major, Minor uint }

// ParseVersion reads "3.7" or "3.7.0". A patch level is dropped.
func ParseVersion(text string) (Version, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return Version{}, fmt.Errorf("%w: %q", ErrVersion, text)
	}
	var numbers [3]uint
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%w: %q", ErrVersion, text)
		}
		numbers[i] = uint(n)
	}
	return Version{Major: numbers[0], Minor: numbers[1]}, nil
}

// String returns the version as etcd stores it, "3.7.0"; empty for zero.
func (v Version) String() string {
	if v == (Version{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d.0", v.Major, v.Minor)
}

func (v Version) less(o Version) bool {
	return v.Major < o.Major || (v.Major == o.Major && v.Minor < o.Minor)
}
