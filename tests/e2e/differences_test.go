package e2e

import "google.golang.org/grpc/codes"

// What Holdfast answers otherwise than the etcd beside it, all in one place. Everything else must be the same.

// version is what Status and /version say. Holdfast tells the version of the API that it speaks, etcd its own.
func (s *system) version() string {
	if s.oracle {
		return "3.7.3"
	}
	return "3.7.0"
}

// clusterVersion is the version of the API that all members speak, in /version.
const clusterVersion = "3.7.0"

// implemented tells whether what Holdfast does not have yet must be there.
func (s *system) implemented() bool { return s.oracle }

// ownMetrics are there in Holdfast alone.
func (s *system) ownMetrics() []string {
	if s.oracle {
		return nil
	}
	return []string{"holdfast_build_info"}
}

// sortTargetInStream is what becomes of a RangeStream with a sort target and no order. etcd sorts each chunk for itself and goes on
// behind its last key, so that keys come twice or never; Holdfast refuses it like any other sort.
func (s *system) sortTargetInStream() codes.Code {
	if s.oracle {
		return codes.OK
	}
	return codes.Unimplemented
}

// writesWhatItRefuses: where etcd's apply is the first to see that the quota is used up, it writes the put and answers that there is no
// space. Holdfast decides before the proposal alone.
func (s *system) writesWhatItRefuses() bool { return s.oracle }
