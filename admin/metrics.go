package admin

import (
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newMetrics registers which program this is, so that a graph can tell one version from the next.
func newMetrics(reg prometheus.Registerer, build Build) {
	promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "build_info",
		Help: "Always 1; the labels say which program this is.",
	}, []string{"version", "revision", "goversion"}).WithLabelValues(build.Version, build.Revision, build.Go).Set(1)
}

// metricsHandler answers one scrape. It does not fail a whole scrape for one collector.
func metricsHandler(gatherer prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 8,
	})
}

// A metricsServer serves /metrics on one TCP address.
type metricsServer struct {
	configured string // as the topology has it
	listener   net.Listener
	server     *http.Server
	done       chan struct{} // closed when the serving goroutine has ended
}

func serveMetrics(listener net.Listener, configured string, gatherer prometheus.Gatherer) *metricsServer {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(gatherer))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!doctype html><title>Mainstay</title><p>Mainstay's <a href=\"/metrics\">metrics</a>.\n")
	})
	m := &metricsServer{
		configured: configured,
		listener:   listener,
		server: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute * 2,
			MaxHeaderBytes:    16 << 10,
		},
		done: make(chan struct{}),
	}
	go func() {
		defer close(m.done)
		m.server.Serve(listener)
	}()
	return m
}

// address returns the address that the topology asked for, or nothing for no server.
func (m *metricsServer) address() string {
	if m == nil {
		return ""
	}
	return m.configured
}

// bound returns the address that was bound, or nothing for no server.
func (m *metricsServer) bound() string {
	if m == nil {
		return ""
	}
	return m.listener.Addr().String()
}

// stop waits until the server, if there is one, has let go of its address; scrapes under way are cut off.
func (m *metricsServer) stop() {
	if m == nil {
		return
	}
	m.server.Close()
	<-m.done
}
