package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mainstay/topology"
)

// TestTurmoil has clients and instances that break off, answer early, stall and send nonsense while instances come and go, requests are
// held, and the engine and the limits change. In the end nothing is left of any of it, and no client has got what was another's.
func TestTurmoil(t *testing.T) {
	duration := 2 * time.Second
	if os.Getenv("MAINSTAY_SOAK") != "" {
		duration = time.Minute
	}
	route := route0("web")
	route.Timeouts = topology.Timeouts{Connect: 300 * time.Millisecond, ResponseHeader: 100 * time.Millisecond, Idle: 100 * time.Millisecond}
	r := newRig(t, route)
	var logged strings.Builder
	r.policies.log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError})) // nothing has been logged yet
	r.hold(topology.WhenUnavailable{Hold: topology.Hold{For: 100 * time.Millisecond, Requests: 20, Bytes: 1 << 20}})
	for i := range 3 {
		r.raw("web", fmt.Sprint("web/", i), hostileInstance)
	}
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var all sync.WaitGroup
	for n := range 24 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(n)))
			for ctx.Err() == nil {
				if err := hostileClient(r.address(), random, fmt.Sprintf("c%d", n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(7, 1000))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	instances := r.Status().Services[0].Instances
	for ctx.Err() == nil {
		<-tick.C
		i := instances[random.IntN(len(instances))]
		instance := topology.Instance{Service: "web", ID: i.ID, Address: i.Address, Weight: 1}
		switch random.IntN(6) {
		case 0, 1:
			r.drop("web", i.ID)
		case 2, 3:
			r.Admit(instance)
		case 4:
			r.topology.Proxy.Limits = topology.ClientLimits{
				BodyTimeout: time.Duration(random.IntN(2)) * 50 * time.Millisecond, SendTimeout: time.Duration(random.IntN(2)) * 50 * time.Millisecond,
				IdleTimeout: time.Duration(random.IntN(2)) * 50 * time.Millisecond,
			}
			r.apply()
		case 5:
			r.topology.Proxy.Engine = []topology.ProxyEngine{topology.EngineAuto, topology.EngineAuto, topology.EngineNetHTTP}[random.IntN(3)]
			r.apply()
		}
	}
	all.Wait()
	await(t, "nothing is under way", func() bool {
		for _, s := range r.Status().Services {
			for _, i := range s.Instances {
				if i.InFlight != 0 {
					return false
				}
			}
			if s.Held != 0 {
				return false
			}
		}
		return r.listener("http").Connections == 0
	})
	reasons := map[reason]int{}
	for _, rec := range r.records() {
		reasons[rec.Reason]++
	}
	t.Logf("requests by reason: %v", reasons)
	if reasons[reasonInternalFailure] > 0 || logged.Len() > 0 {
		t.Errorf("there is a bug: %s", logged.String())
	}
	v := &r.policies.visitors
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.open); n != 0 {
		t.Errorf("%d clients are counted in the end", n)
	}
}

// hostileClient makes a connection and uses it badly. It returns an error if it gets an answer that is another's.
func hostileClient(address string, random *rand.Rand, name string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if random.IntN(4) == 0 {
		c.(*net.TCPConn).SetLinger(0)
	}
	_ = c.SetDeadline(time.Now().Add(time.Duration(random.IntN(1000)) * time.Millisecond))
	var text strings.Builder
	var marks []string
	for n := range 1 + random.IntN(6) {
		mark := fmt.Sprintf("%s-%d-%d", name, n, random.Uint64())
		marks = append(marks, mark)
		head := fmt.Sprintf(" /%s?%d HTTP/1.1\r\nHost: a\r\nX-Mark: %s\r\n", mark, random.Uint64(), mark)
		size := random.IntN(3000)
		if random.IntN(8) == 0 {
			size = random.IntN(1 << 20)
		}
		switch random.IntN(7) {
		case 0, 1:
			text.WriteString("GET" + head + "\r\n")
		case 2:
			fmt.Fprintf(&text, "POST%sContent-Length: %d\r\n\r\n%s", head, size, strings.Repeat("p", size))
		case 3:
			fmt.Fprintf(&text, "PUT%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, size+1, strings.Repeat("q", size+1))
		case 4:
			fmt.Fprintf(&text, "PUT%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", head, size+1, strings.Repeat("e", size+1))
		case 5:
			text.WriteString("GET" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + strings.Repeat("w", size))
		case 6:
			text.WriteString("HEAD" + head + "\r\n")
		}
	}
	whole := text.String()
	if random.IntN(3) == 0 {
		whole = whole[:random.IntN(len(whole))]
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for rest := whole; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(100_000))
			if _, err := io.WriteString(c, rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
	}()
	<-sent
	switch random.IntN(4) {
	case 0:
		return nil
	case 1:
		c.(*net.TCPConn).CloseWrite()
	}
	b, _ := io.ReadAll(io.LimitReader(c, int64(random.IntN(4<<20))))
	for line := range strings.SplitSeq(string(b), "\r\n") {
		if mark, ok := strings.CutPrefix(line, "X-Mark: "); ok {
			// In order: those before may have got an answer of the proxy's own.
			for len(marks) > 0 && marks[0] != mark {
				marks = marks[1:]
			}
			if len(marks) == 0 {
				return fmt.Errorf("client %s got the response to %s", name, mark)
			}
		}
	}
	return nil
}

// hostileInstance answers badly.
func hostileInstance(c net.Conn, br *bufio.Reader) {
	if rand.IntN(30) == 0 {
		io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
	}
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		mark := "X-Mark: " + req.Header.Get("X-Mark") + "\r\n"
		if rand.IntN(4) > 0 {
			io.Copy(io.Discard, req.Body)
		}
		size := rand.IntN(5000)
		if rand.IntN(6) == 0 {
			size = rand.IntN(2 << 20)
		}
		if req.Header.Get("Upgrade") != "" && rand.IntN(4) > 0 {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+mark+"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+strings.Repeat("t", size))
			if rand.IntN(2) == 0 {
				c.(*net.TCPConn).CloseWrite()
			}
			io.Copy(io.Discard, br)
			return
		}
		content := strings.Repeat("r", size)
		if req.Method == "HEAD" {
			content = ""
		}
		var text string
		switch rand.IntN(5) {
		case 0, 1:
			text = fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", mark, size, content)
		case 2:
			text = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n" + mark + "Transfer-Encoding: chunked\r\n\r\n"
			if content != "" {
				text += fmt.Sprintf("%x\r\n%s\r\n", len(content), content)
			}
			if req.Method != "HEAD" {
				text += "0\r\nX-T: 1\r\n\r\n"
			}
		case 3:
			text = "HTTP/1.1 200 OK\r\n" + mark + "\r\n" + content
			io.WriteString(c, text)
			return
		case 4:
			text = fmt.Sprintf("HTTP/1.1 404 Not Found\r\n%sContent-Length: %d\r\n\r\n%s", mark, size, content) + "HTTP/1.1 200 OK\r\nX-Mark: poison\r\n\r\n"
		}
		if rand.IntN(5) == 0 {
			text = text[:rand.IntN(len(text))]
		}
		if _, err := io.WriteString(c, text); err != nil || rand.IntN(8) == 0 {
			if rand.IntN(2) == 0 {
				c.(*net.TCPConn).SetLinger(0)
			}
			return
		}
	}
}
