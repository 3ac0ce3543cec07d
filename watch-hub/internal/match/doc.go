// Package match finds the registrations that a change belongs to.
//
// Registrations that want the same (range, filter, previous values) form a Group, and a change is matched once against the
// groups, however many registrations each has. Single keys are found by a map, ranges by a tree of intervals in O(log n + hits).
//
// It promises that Match gives each group with at least one wanted event exactly once, with the wanted revisions in order,
// and that adding and removing cost O(log n) however many registrations there are. It asks its caller for non-overlapping
// use: an Index is not safe for concurrent use. Lists of ids and of revisions that it gives out are never changed
// afterwards, so they may be sent without a copy.
package match
