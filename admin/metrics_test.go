package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

func withMetrics(address string) *topology.Topology {
	return &topology.Topology{Metrics: topology.Metrics{Address: address}}
}

// freeAddress returns an address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// scrape returns the body of a GET, or nothing if nobody answers.
func scrape(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestMetricsFollowTheTopology(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	apply := func(topo *topology.Topology) {
		t.Helper()
		if err := h.Apply(ctx, topo); err != nil {
			t.Fatal(err)
		}
	}
	defer apply(topology.Empty)

	first, second := freeAddress(t), freeAddress(t)
	apply(withMetrics(first))
	if !strings.Contains(scrape(t, "http://"+first+"/metrics"), "mainstay_build_info") {
		t.Errorf("no metrics at %s", first)
	}
	if !strings.Contains(scrape(t, "http://"+first+"/"), `href="/metrics"`) {
		t.Errorf("no page at %s", first)
	}
	if got := h.Status().MetricsAddress; got != first {
		t.Errorf("status says %q, want %q", got, first)
	}

	server := h.metrics
	apply(withMetrics(first))
	if h.metrics != server {
		t.Error("the same topology replaced the server")
	}

	apply(withMetrics(second))
	if scrape(t, "http://"+first+"/metrics") != "" {
		t.Errorf("%s still answers", first)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := h.Apply(ctx, withMetrics(taken.Addr().String())); err == nil {
		t.Error("Apply took an address that is in use")
	}
	if scrape(t, "http://"+second+"/metrics") == "" {
		t.Errorf("a refused topology ended the metrics at %s", second)
	}

	everywhere := ":" + port(second)
	apply(withMetrics(everywhere))
	if scrape(t, "http://"+second+"/metrics") == "" {
		t.Errorf("%s does not answer at %s", everywhere, second)
	}

	apply(topology.Empty)
	if scrape(t, "http://"+second+"/metrics") != "" {
		t.Errorf("%s still answers", second)
	}
}

func TestMetricsAreNamedWell(t *testing.T) {
	problems, err := testutil.GatherAndLint(newHouse(t).gatherer)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
