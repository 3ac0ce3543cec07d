package mvcc

// Ops are the operations of one request, or of several, as etcd counts them: a comparison reads a range, and so does what asks for a
// previous key-value, whether or not anybody waits for the answer.
type Ops struct {
	Ranges, Puts, Deletes int
	// Txns are the requests of more than one operation.
	Txns int
	// PutBytes is the size of the keys and values put.
	PutBytes int
}

// Add adds more operations.
func (o *Ops) Add(more Ops) {
	o.Ranges += more.Ranges
	o.Puts += more.Puts
	o.Deletes += more.Deletes
	o.Txns += more.Txns
	o.PutBytes += more.PutBytes
}

// request gives the operations of one request.
func (o Ops) request() Ops {
	if o.Ranges+o.Puts+o.Deletes > 1 {
		o.Txns = 1
	}
	return o
}
