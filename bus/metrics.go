package bus

import "github.com/prometheus/client_golang/prometheus"

// metrics shows what the relays count. The counters themselves are the relays' own, so
// that a message costs no more than a few additions for every batch.
type metrics struct {
	bus *Bus

	received, receivedBytes   *prometheus.Desc
	delivered, deliveredBytes *prometheus.Desc
	dropped                   *prometheus.Desc
	failures, disconnects     *prometheus.Desc
	publishers, subscribers   *prometheus.Desc
	subscriptions, queued     *prometheus.Desc
}

// newMetrics registers the metrics of b with reg, unless that is nil.
func newMetrics(reg prometheus.Registerer, b *Bus) {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("bus_"+name, help, append([]string{"relay"}, more...), nil)
	}
	m := &metrics{
		bus:            b,
		received:       desc("messages_received_total", "Messages from publishers."),
		receivedBytes:  desc("received_bytes_total", "Bytes of the messages from publishers, as encoded."),
		delivered:      desc("messages_delivered_total", "Messages written to subscribers, once for each."),
		deliveredBytes: desc("delivered_bytes_total", "Bytes of the messages written to subscribers, as encoded."),
		dropped:        desc("messages_dropped_total", "Messages that matched a subscriber and were not written to it, once for each.", "reason"),
		failures:       desc("handshake_failures_total", "Connections that did not get past their handshake.", "reason"),
		disconnects:    desc("disconnects_total", "Connections past their handshake that ended.", "reason"),
		publishers:     desc("publishers", "Publishers connected."),
		subscribers:    desc("subscribers", "Subscribers connected."),
		subscriptions:  desc("subscriptions", "Topic prefixes subscribed to, once for each subscriber."),
		queued:         desc("queued_bytes", "Bytes that wait to be written to subscribers."),
	}
	if reg != nil {
		reg.MustRegister(m)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.received, m.receivedBytes, m.delivered, m.deliveredBytes, m.dropped, m.failures, m.disconnects,
		m.publishers, m.subscribers, m.subscriptions, m.queued,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for name, r := range m.bus.snapshot() {
		counter := func(d *prometheus.Desc, n uint64, reason ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{name}, reason...)...)
		}
		gauge := func(d *prometheus.Desc, n int64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), name)
		}
		counter(m.received, r.stats.received.Load())
		counter(m.receivedBytes, r.stats.receivedBytes.Load())
		counter(m.delivered, r.stats.delivered.Load())
		counter(m.deliveredBytes, r.stats.deliveredBytes.Load())
		for why := range drops {
			counter(m.dropped, r.stats.dropped[why].Load(), why.String())
		}
		for reason, n := range r.stats.failures.snapshot() {
			counter(m.failures, n, reason)
		}
		for reason, n := range r.stats.disconnects.snapshot() {
			counter(m.disconnects, n, reason)
		}
		s := r.status()
		var subscriptions, queued int64
		for _, p := range s.Peers {
			subscriptions += int64(p.Subscriptions)
			queued += p.QueuedBytes
		}
		gauge(m.publishers, int64(s.Publishers.Peers))
		gauge(m.subscribers, int64(s.Subscribers.Peers))
		gauge(m.subscriptions, subscriptions)
		gauge(m.queued, queued)
	}
}
