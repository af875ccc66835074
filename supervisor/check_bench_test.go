package supervisor

import (
	"net"
	"testing"
)

// BenchmarkTCPProbe is what one try costs, without the one who answers: 500 instances that are asked every 5 s are 100 a second.
func BenchmarkTCPProbe(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	c := check{tcp: l.Addr().String()}
	m := &machine{}
	for b.Loop() {
		if err := m.check(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}
