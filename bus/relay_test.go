package bus

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

// Each subscriber is sent what matches, all of it and nothing else, however it was cut and whatever came between. (The
// sockets of libzmq would not show what is sent in vain: they filter again.)
func TestSendsOnlyWhatMatches(t *testing.T) {
	b := start(t, roomy)
	in, _ := endpoints(b)
	prefixes := []string{"", "a", "b", "ab", "c"}
	var subscribers []*zmtp.Conn
	for _, prefix := range prefixes {
		subscribers = append(subscribers, subscribed(t, b, prefix))
	}
	if err := subscribers[1].Subscribe([]byte("ab")); err != nil { // overlaps
		t.Fatal(err)
	}
	eventually(t, "subscriptions", func() bool { return subscriptions(b) == len(prefixes)+1 })

	var stream []byte
	wanted := make([][]string, len(prefixes))
	for n := range 5000 {
		topic := []string{"a", "ab", "b", "x", ""}[n*n%5] + fmt.Sprint(n)
		stream = zmtp.AppendMessage(stream, []byte(topic), make([]byte, n%300))
		if n%7 == 0 {
			stream = zmtp.AppendPing(stream, 0, []byte("between"))
		}
		for i, prefix := range prefixes {
			if strings.HasPrefix(topic, prefix) {
				wanted[i] = append(wanted[i], topic)
			}
		}
	}
	stream = zmtp.AppendMessage(stream, []byte("abc end"))
	stream = zmtp.AppendMessage(stream, []byte("b end"))
	stream = zmtp.AppendMessage(stream, []byte("c end"))
	publisher := dialRaw(t, in)
	io.WriteString(publisher, greetingNull+readyPub)
	go publisher.Write(stream)
	for i, s := range subscribers {
		var got []string
		for {
			frames, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if topic := string(frames[0]); !strings.HasSuffix(topic, " end") {
				got = append(got, topic)
				continue
			}
			break
		}
		if diff := cmp.Diff(wanted[i], got); diff != "" {
			t.Errorf("subscriber to %q (-want +got):\n%s", prefixes[i], diff)
		}
	}
}

// received × matches = delivered + dropped, whatever became of the subscribers.
func TestCountersAddUp(t *testing.T) {
	b := start(t, topology.Queue{Limit: megabyte, WhenFull: topology.DropNewest})
	in, _ := endpoints(b)
	const publishers, messages, always = 4, 10_000, 3
	stalled, leaving, reading := subscribed(t, b, ""), subscribed(t, b, ""), subscribed(t, b, "")
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			if _, err := reading.Receive(); err != nil {
				return
			}
		}
	})
	var writers sync.WaitGroup
	for range publishers {
		conn := connect(t, in, zmtp.PUB)
		writers.Go(func() {
			body := make([]byte, 300)
			for range messages {
				conn.Send([]byte("topic"), body)
			}
		})
	}
	writers.Wait()
	eventually(t, "messages received", func() bool { return b.Status()[0].Received == publishers*messages })
	leaving.Close()
	stalled.Close()
	want := uint64(publishers * messages * always)
	eventually(t, "counters adding up", func() bool {
		s := b.Status()[0]
		return s.Subscribers.Peers == 1 && s.Delivered+s.Dropped == want && s.Dropped > 0
	})
	reading.Close()
	readers.Wait()
}

// Subscribers that read nothing cost what their queues may hold, however few of the messages that
// are read together are for them.
func TestMemoryOfStalledSubscribers(t *testing.T) {
	const subscribers, limit = 16, 2 * megabyte
	b := start(t, topology.Queue{Limit: limit, WhenFull: topology.DropOldest})
	in, _ := endpoints(b)
	for i := range subscribers {
		subscribed(t, b, fmt.Sprintf("%02d", i))
	}
	publisher := dialRaw(t, in)
	go io.Copy(io.Discard, publisher)
	io.WriteString(publisher, greetingNull+readyPub)
	var batch []byte
	for i := range 1000 {
		batch = zmtp.AppendMessage(batch, fmt.Appendf(nil, "%02d", i%(2*subscribers)), make([]byte, 700))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const batches = 300 // each subscriber's share is 3 limits
	for range batches {
		if _, err := publisher.Write(batch); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "messages received", func() bool { return b.Status()[0].Received == batches*1000 })
	runtime.GC()
	runtime.ReadMemStats(&after)
	var queued int64
	for _, p := range b.Status()[0].Peers {
		queued += p.QueuedBytes
	}
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes queued, limits are %d, the heap grew by %d", queued, subscribers*limit, grown)
	if queued < subscribers*limit*9/10 || queued > subscribers*limit {
		t.Errorf("%d bytes queued; the limits are %d together", queued, subscribers*limit)
	}
	if grown > subscribers*limit*3/2 {
		t.Errorf("the heap grew by %d bytes for limits of %d together", grown, subscribers*limit)
	}
}

func TestLargestMessage(t *testing.T) {
	b := start(t, roomy)
	in, _ := endpoints(b)
	publisher, subscriber := connect(t, in, zmtp.PUB), subscribed(t, b, "")
	body := bytes.Repeat([]byte("0123456789abcdef"), 4<<20) // 64 MiB
	var sending sync.WaitGroup
	sending.Go(func() { publisher.Send(body) })
	frames, err := subscriber.Receive()
	if err != nil || len(frames) != 1 || !bytes.Equal(frames[0], body) {
		t.Errorf("%d frames, error %v", len(frames), err)
	}
	sending.Wait()
}

func BenchmarkRelay(b *testing.B) {
	for _, subscribers := range []int{1, 10} {
		for _, size := range []int{100, 1024} {
			b.Run(fmt.Sprintf("subscribers=%d/size=%d", subscribers, size), func(b *testing.B) {
				benchmarkRelay(b, subscribers, size)
			})
		}
	}
}

// benchmarkRelay has a publisher send batches as large as libzmq's to subscribers that look at nothing.
func benchmarkRelay(b *testing.B, subscribers, size int) {
	bus := New(slog.New(slog.DiscardHandler), nil, nil)
	if err := bus.Apply(b.Context(), relays(roomy)); err != nil {
		b.Fatal(err)
	}
	in, out := endpoints(bus)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer bus.Apply(b.Context(), topology.Empty)
	peer := func(endpoint, hello string) net.Conn {
		conn, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "tcp://"))
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(conn, greetingNull+hello)
		reading.Go(func() {
			io.Copy(io.Discard, conn)
			conn.Close()
		})
		return conn
	}
	for range subscribers {
		peer(out, readySub+"\x00\x01\x01")
	}
	for subscriptions(bus) < subscribers {
		runtime.Gosched()
	}
	publisher := peer(in, readyPub)
	message := zmtp.AppendMessage(nil, make([]byte, size))
	batch := bytes.Repeat(message, max(1, 8192/len(message)))
	messages := uint64(len(batch) / len(message))
	delivered := &bus.relays["events"].stats.delivered
	var sent uint64
	for b.Loop() {
		publisher.Write(batch)
		sent += messages
		for delivered.Load()+10_000 < sent*uint64(subscribers) {
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent*uint64(subscribers)), "ns/delivery")
}
