package watchsim

import (
	"fmt"
	"time"
)

// fault is something that goes wrong. goesOn: while it lasts, what is written arrives all the same.
type fault struct {
	name   string
	goesOn bool
	// begin lets it happen and gives what ends it.
	begin func(s *sim) (heal func())
}

func (s *sim) anyHub() string { return fmt.Sprint("h", 1+s.rng.IntN(hubCount)) }

// follower is a node that does not lead.
func (s *sim) follower() uint64 { return s.world.leader%nodeCount + 1 }

func faults() []fault {
	return []fault{
		{"kill-hub", true, func(s *sim) func() {
			name := s.anyHub()
			s.killHub(name)
			return func() { s.startHub(name) }
		}},
		{"kill-all-hubs", false, func(s *sim) func() {
			s.killHub("h1")
			s.killHub("h2")
			return func() { s.startHub("h2"); s.startHub("h1") }
		}},
		{"terminate-hub", true, func(s *sim) func() {
			name := s.anyHub()
			s.hubs[name].stop()
			return func() { <-s.hubs[name].ended; s.startHub(name) }
		}},
		{"new-hub", true, func(s *sim) func() {
			s.startHub("h3")
			return func() { s.hubs["h3"].stop() }
		}},
		{"kill-proxy", true, func(s *sim) func() {
			name := fmt.Sprint("p", 1+s.rng.IntN(proxyCount))
			s.killProxy(name)
			return func() { s.startProxy(name) }
		}},
		{"kill-leader", true, func(s *sim) func() {
			id, next := s.world.leader, s.follower()
			s.killNode(id)
			time.Sleep(1500 * time.Millisecond)
			s.world.elect(next)
			return func() { s.startNode(id) }
		}},
		{"kill-follower", true, func(s *sim) func() {
			id := s.follower()
			s.killNode(id)
			return func() { s.startNode(id) }
		}},
		{"no-leader", false, func(s *sim) func() {
			id := s.world.leader
			s.world.elect(0)
			return func() { s.world.elect(id) }
		}},
		{"move-leader", true, func(s *sim) func() {
			s.world.elect(s.follower())
			return func() {}
		}},
		{"lagging-followers", true, func(s *sim) func() {
			lag := func(lags bool) {
				s.world.do(func() {
					for _, n := range s.world.nodes {
						n.lags = lags && n.id != s.world.leader
						if !lags {
							n.applied = int64(len(s.world.history)) - 1
						}
					}
				})
			}
			lag(true)
			return func() { lag(false) }
		}},
		{"bus-outage", true, func(s *sim) func() {
			s.bus.setDown(true)
			return func() { s.bus.setDown(false) }
		}},
		{"silent-bus", true, func(s *sim) func() { return s.storm(weather{lose: 100}) }},
		{"storm", true, func(s *sim) func() {
			return s.storm(weather{lose: 40, repeat: 40, delay: 60, delayMax: 2 * time.Second})
		}},
		{"deaf-hub", true, func(s *sim) func() {
			name := s.anyHub()
			s.bus.do(func() { s.bus.deaf[name] = true })
			s.net.hold(name, "", true)
			return func() {
				s.bus.do(func() { delete(s.bus.deaf, name) })
				s.net.hold(name, "", false)
			}
		}},
		{"hub-hears-a-laggard", true, func(s *sim) func() {
			name, laggard := s.anyHub(), s.follower()
			s.world.do(func() { s.world.nodes[laggard].lags = true })
			cut := func(held bool) {
				s.bus.do(func() { s.bus.deaf[name] = held })
				for id := range uint64(nodeCount) {
					if id+1 != laggard {
						s.net.hold(name, nodeAddress(id+1), held)
					}
				}
			}
			cut(true)
			return func() {
				s.world.do(func() {
					s.world.nodes[laggard].lags = false
					s.world.nodes[laggard].applied = int64(len(s.world.history)) - 1
				})
				cut(false)
			}
		}},
		{"cut-hub-from-proxies", true, func(s *sim) func() {
			name := s.anyHub()
			cut := func(held bool) {
				for i := range proxyCount {
					s.net.hold(fmt.Sprint("p", i+1), hubAddress(name), held)
				}
			}
			cut(true)
			return func() { cut(false) }
		}},
		{"cut-hub-from-a-node", true, func(s *sim) func() {
			name, address := s.anyHub(), nodeAddress(1+s.rng.Uint64N(nodeCount))
			s.net.hold(name, address, true)
			return func() { s.net.hold(name, address, false) }
		}},
	}
}

// storm changes the bus' weather for a while.
func (s *sim) storm(w weather) func() {
	var before weather
	s.bus.do(func() { before, s.bus.weather = s.bus.weather, w })
	return func() { s.bus.do(func() { s.bus.weather = before }) }
}
