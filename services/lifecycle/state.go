package lifecycle

// State is where a part is in its life.
type State int32

// The states, in the order of a life.
const (
	New      State = iota // made, nothing done
	Starting              // Start is on its way
	Running               // Start has returned; Run is on its way, or there is none
	Stopping              // Stop is on its way, or Run was told to end
	Stopped               // ended as asked, or Run had nothing more to do
	Failed                // Start, Run or Stop returned an error, or did not end in time
)

// String is the state's name in lower case.
func (s State) String() string {
	switch s {
	case New:
		return "new"
	case Starting:
		return "starting"
	case Running:
		return "running"
	case Stopping:
		return "stopping"
	case Stopped:
		return "stopped"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// follows tells whether the drawing in doc.go has an arrow from s to next.
func (s State) follows(next State) bool {
	switch next {
	case Starting:
		return s == New
	case Running:
		return s == Starting
	case Stopping:
		return s == Running
	case Stopped:
		return s == Stopping
	case Failed:
		return s == Starting || s == Running || s == Stopping
	case New:
	}
	return false
}
