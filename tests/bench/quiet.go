package main

import (
	"context"
	"errors"
)

// besideQuiet is the steps of a row that measures the same load twice: as it is, and then from the begin to the end of an operator's work.
func besideQuiet(work upkeep) steps {
	return func(ctx context.Context, st *stage) error {
		if err := once(ctx, st); err != nil {
			return err
		}
		st.quietP99 = st.meter.forget(0.99)
		st.spans = nil
		if err := st.open(); err != nil {
			return err
		}
		return errors.Join(work(ctx, st.target), st.shut())
	}
}

// whole is the steps of a row whose one client does few and long operations: what is measured begins and ends with one.
func whole(ctx context.Context, st *stage) error {
	if err := st.meter.next(ctx); err != nil {
		return err
	}
	if err := st.open(); err != nil {
		return err
	}
	if err := pause(ctx, st.measured); err != nil {
		return err
	}
	if err := st.meter.next(ctx); err != nil {
		return err
	}
	return st.shut()
}
