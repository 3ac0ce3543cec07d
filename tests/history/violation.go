package history

import "fmt"

// Violation is a promise that the record shows broken.
type Violation struct {
	// Check is the check that says so, for example "watch" or "lease".
	Check string
	Text  string
}

// String is the violation on one line.
func (v Violation) String() string { return v.Check + ": " + v.Text }

// violationsMax bounds what one check reports.
const violationsMax = 8

// findings gathers what one check finds.
type findings struct {
	check string
	all   []Violation
}

func (f *findings) add(format string, args ...any) {
	if len(f.all) < violationsMax {
		f.all = append(f.all, Violation{f.check, fmt.Sprintf(format, args...)})
	}
}

func (f *findings) full() bool { return len(f.all) >= violationsMax }
