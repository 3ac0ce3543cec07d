package differential

// Shrink makes a failing sequence shorter as long as fails says that it still fails: it leaves out halves, then
// quarters, and so on down to single requests (delta debugging). fails is called at most trials times.
func Shrink(ops []Op, trials int, fails func([]Op) bool) []Op {
	for size := len(ops) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(ops); {
			if trials == 0 {
				return ops
			}
			trials--
			shorter := append(append([]Op(nil), ops[:at]...), ops[at+size:]...)
			if len(shorter) > 0 && fails(shorter) {
				ops = shorter
				continue
			}
			at += size
		}
	}
	return ops
}
