package follow

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// revisionsField is the number of the field with the changes of keys, by far the largest part of a message and of no
// interest here.
const revisionsField = 17

// Decode decodes a feed message without its changes of keys.
func Decode(payload []byte) (*feedv1.Message, error) {
	kept := payload
	copied := false
	for rest := payload; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, fmt.Errorf("follow: malformed message: %w", protowire.ParseError(n))
		}
		m := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if m < 0 {
			return nil, fmt.Errorf("follow: malformed message: %w", protowire.ParseError(m))
		}
		switch {
		case number == revisionsField && !copied:
			// The payload is shared: what comes before is copied, not changed.
			kept, copied = append([]byte(nil), payload[:len(payload)-len(rest)]...), true
		case number != revisionsField && copied:
			kept = append(kept, rest[:n+m]...)
		}
		rest = rest[n+m:]
	}
	message := &feedv1.Message{}
	if err := message.UnmarshalVT(kept); err != nil {
		return nil, fmt.Errorf("follow: malformed message: %w", err)
	}
	return message, nil
}
