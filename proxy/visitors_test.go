package proxy

import (
	"net/netip"
	"testing"
)

func TestVisitors(t *testing.T) {
	var v visitors
	four, mapped, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	six, neighbour, zoned := netip.MustParseAddr("2001:db8:0:1::1"), netip.MustParseAddr("2001:db8:0:1:2::3"), netip.MustParseAddr("fe80::1%eth0")
	elsewhere := netip.MustParseAddr("2001:db8:0:2::1")
	for _, step := range []struct {
		a     netip.Addr
		limit int
		want  bool
	}{
		{four, 2, true}, {mapped, 2, true}, {four, 2, false}, {mapped, 2, false}, {other, 2, true},
		{four, 0, true}, {four, 3, false},
		{six, 1, true}, {neighbour, 1, false}, {elsewhere, 1, true}, {zoned, 1, true},
	} {
		if got := v.enter(step.a, step.limit); got != step.want {
			t.Errorf("%s with a limit of %d: %t", step.a, step.limit, got)
		}
	}
	v.leave(neighbour)
	if !v.enter(six, 1) {
		t.Error("it left and may not come back")
	}
	for _, a := range []netip.Addr{four, four, mapped, other, six, elsewhere, zoned} {
		v.leave(a)
	}
	if len(v.open) != 0 {
		t.Errorf("%v stayed", v.open)
	}
}
