// Package app is the consensus node as a process or as a part of one: its configuration, its parts in the order of their
// start, and its offline commands.
//
// Join asks the cluster that a new member is to join, and does nothing for any other. Open takes the data directory and builds the node without listening anywhere; Register and RegisterAdmin put its
// services on whatever server the caller has; Parts run it. Run does all of that for a process of its own. Standalone
// uses the same three steps with the direct binding beside the network one.
package app
