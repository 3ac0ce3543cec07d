// Package hub is the pure core of a watch-hub: it knows every registration of every proxy stream, where each stands, and what the
// feed has said.
//
// A registration goes through places:
//
//	unplaced   the hub has no position yet
//	future     it starts beyond the live position: it joins, without earlier changes, when that position is reached
//	ready      what it misses is in the window: it waits for the sweep
//	behind     what it misses is older than the window: it waits for a history pass
//	awaiting   a history pass of its range is on its way to where it stands, and will take it along
//	passing    a pass delivers to it, in steps
//	parked     its proxy takes too slowly for catching up: it waits until the proxy has taken more
//	live       every accepted interval is matched for it and covers it
//
// The sweep is one walk over the window for all registrations that are ready, and a history pass one request to a node for
// many ranges: neither costs more because more registrations ask. Both push bounded steps, so live traffic goes on between
// them, and a registration turns from passing to live at one moment, between two intervals, so nothing is lost or doubled.
//
// # What it asks of its caller
//
// One goroutine at a time calls in. After every call it carries out Take's effects, in order; after calls that may have left
// catching up to do it calls Work until that says no, other calls in between. A StartHistory is answered by History messages,
// each after the Processed of the one before, and one HistoryEnded; a LookUp by one Values. Both are tried again by the caller
// until they succeed. Need says what the live position misses; what was fetched for it goes to Receive. Queues are
// emptied by others, and Relieved is called when a Take of one says so. Tick comes every 100 ms or so.
package hub
