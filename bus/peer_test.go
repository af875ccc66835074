package bus

import (
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	begin := time.Now()
	second := func(n float64) time.Time { return begin.Add(time.Duration(n * float64(time.Second))) }
	tests := []struct {
		name      string
		pings     bool // the peer knows PING
		ttl       time.Duration
		heard     []float64 // seconds at which something comes
		delivered float64   // second from which on messages are sent to the peer each second, 0: never
		dead      float64   // second at which it is given up, 0: not within a minute
	}{
		{name: "answers", pings: true, heard: []float64{10.5, 20.5, 30.5, 40.5, 50.5}},
		{name: "never answers", pings: true, dead: 30},
		{name: "stops answering", pings: true, heard: []float64{10.5}, dead: 41},
		{name: "ZMTP 3.0", pings: false},
		{name: "breaks its promise", pings: false, ttl: 5 * time.Second, heard: []float64{1.5, 3.5}, dead: 10},
		{name: "keeps its promise", pings: true, ttl: 20 * time.Second, heard: []float64{15, 30, 45}},
		{name: "does not read what it is sent", pings: true, heard: []float64{10.5}, delivered: 15},
		{name: "silent since long before it was sent something", pings: true, delivered: 40, dead: 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pulse{last: begin}
			p.ttl.Store(int64(tt.ttl))
			var delivered uint64
			var dead float64
			pings := 0
			for n := 1.0; n <= 60 && dead == 0; n++ {
				for _, at := range tt.heard {
					if at > n-1 && at <= n {
						p.heard.Store(true)
					}
				}
				if tt.delivered > 0 && n >= tt.delivered {
					delivered++
				}
				ping, gone := p.beat(second(n), tt.pings, delivered)
				if ping {
					pings++
				}
				if gone {
					dead = n
				}
			}
			if dead != tt.dead {
				t.Errorf("given up after %v s, want %v", dead, tt.dead)
			}
			if tt.pings != (pings > 0) || dead == 0 && tt.pings && pings != 6 {
				t.Errorf("%d PINGs", pings)
			}
		})
	}
}
