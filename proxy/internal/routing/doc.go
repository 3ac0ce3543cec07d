// Package routing decides where a call goes and what becomes of it after each attempt: a pure core, told what the
// consensus nodes say of themselves.
//
// It promises that a write is sent again only when it is certain that it was not proposed; that linearizable calls go to
// the leader of the highest term heard of; that serializable reads never go to a learner; and that nodes of another
// cluster are refused. It keeps no clock and opens no connection: the caller reports what it hears (State.Heard,
// State.Lost), routes by the Table, and asks Next after each attempt.
package routing
