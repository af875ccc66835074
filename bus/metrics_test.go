package bus

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := New(testLog(t), reg, nil)
	startBus(t, b, relays(topology.Queue{Limit: 100, WhenFull: topology.DropNewest}))
	in, _ := endpoints(b)
	publisher, subscriber := connect(t, in, zmtp.PUB), subscribed(t, b, "a")
	for _, message := range []string{"a1", "b", "a" + string(make([]byte, 200)), "a2"} {
		publisher.Send([]byte(message))
	}
	expect(t, subscriber, "a1")
	expect(t, subscriber, "a2")
	dialRaw(t, in).Write([]byte("GET / HTTP/1.1\r\n"))
	eventually(t, "values", func() bool {
		values := gather(t, reg)
		return values["bus_handshake_failures_total not_zmtp"] == 1 && values["bus_messages_delivered_total"] == 2
	})
	values := gather(t, reg)
	for name, want := range map[string]float64{
		"bus_messages_received_total":             4,
		"bus_received_bytes_total":                4 + 3 + 203 + 4,
		"bus_messages_delivered_total":            2,
		"bus_delivered_bytes_total":               8,
		"bus_messages_dropped_total queue_full":   1,
		"bus_messages_dropped_total disconnected": 0,
		"bus_publishers":                          1,
		"bus_subscribers":                         1,
		"bus_subscriptions":                       1,
		"bus_queued_bytes":                        0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// gather returns the values by name and reason.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					name += " " + l.GetValue()
				}
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
