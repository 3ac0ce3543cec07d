package propose

import "context"

// Step does one piece of what Run does, if there is any: it makes one entry of what queued and proposes it. It says whether it did. Step, Sweep
// and End are for a simulation, on one thread, in the place of Run.
func (p *Packer) Step(ctx context.Context) bool { return p.proposeNext(ctx) }

// Sweep ends the wait of writes that are too old.
func (p *Packer) Sweep() { p.sweep() }

// End is the end of Run: everything that waits gets its outcome.
func (p *Packer) End() { p.end() }
