package bus

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

var roomy = topology.Queue{Limit: 256 * megabyte, WhenFull: topology.DropNewest}

func TestPrefixes(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	var got struct{ Failures []string }
	python(t, "prefixes.py", in, out).says(&got)
	for _, f := range got.Failures {
		t.Error(f)
	}
}

func TestMultipart(t *testing.T) {
	tests := []struct {
		name string
		args []string
	}{
		{"1 to 100 frames", []string{scaled(300, 5000), "100", "400"}},
		{"large", []string{"8", "4", "8000000"}},
		{"PING between frames", []string{scaled(20, 500), "500", "2000", "5"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, roomy)
			in, out := endpoints(b)
			var got struct {
				Got   int
				Wrong []int
			}
			python(t, "multipart.py", append([]string{in, out}, tt.args...)...).says(&got)
			if strconv.Itoa(got.Got) != tt.args[0] || len(got.Wrong) > 0 {
				t.Errorf("got %d of %s messages, wrong are %v", got.Got, tt.args[0], got.Wrong)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	var got struct {
		OK     []bool
		Counts []int
	}
	python(t, "order.py", in, out, scaled(100_000, 1_000_000)).says(&got)
	if diff := cmp.Diff([]bool{true, true}, got.OK); diff != "" {
		t.Errorf("counts %v, same as sent:\n%s", got.Counts, diff)
	}
}

func TestPublisherKilled(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	witness := python(t, "witness.py", in, out)
	var ready struct{ Ready bool }
	witness.says(&ready)
	const kills = 20
	for i := range kills {
		before := b.Status()[0].Received
		publisher := python(t, "flood.py", in, fmt.Sprint(i))
		eventually(t, "messages flow", func() bool { return b.Status()[0].Received > before+10 })
		publisher.cmd.Process.Kill()
		publisher.cmd.Wait()
		eventually(t, "publisher gone", func() bool { return b.Status()[0].Publishers.Peers == 1 })
	}
	witness.proceed()
	var got struct {
		Publishers, Whole int
		Wrong             []string
	}
	witness.says(&got)
	if got.Publishers != kills || len(got.Wrong) > 0 {
		t.Errorf("saw %d of %d publishers, %d whole messages; wrong: %q", got.Publishers, kills, got.Whole, got.Wrong)
	}
}

func TestStalledSubscriber(t *testing.T) {
	messages := scaled(20_000, 200_000)
	sent, _ := strconv.Atoi(messages)
	for _, policy := range []topology.QueuePolicy{topology.DropNewest, topology.DropOldest} {
		t.Run(string(policy), func(t *testing.T) {
			const limit = 8 * megabyte
			b := start(t, topology.Queue{Limit: 512 * megabyte, WhenFull: policy})
			in, out := endpoints(b)
			script := python(t, "stalled.py", in, out, messages, "4096")
			eventually(t, "subscribers joined", func() bool { return b.Status()[0].Subscribers.Peers == 2 })
			apply(t, b, relays(topology.Queue{Limit: limit, WhenFull: policy}))
			var healthy struct {
				Healthy  int
				Complete bool
			}
			script.says(&healthy)
			if !healthy.Complete {
				t.Errorf("the healthy subscriber got %d of %d", healthy.Healthy, sent)
			}
			stalled := slowest(b)
			if stalled.QueuedBytes > limit || stalled.Dropped == 0 {
				t.Errorf("stalled subscriber has %d bytes queued of %d and %d dropped", stalled.QueuedBytes, limit, stalled.Dropped)
			}
			script.proceed()
			var rest struct {
				Stalled, First, Last int
				Ordered              bool
			}
			script.says(&rest)
			if dropped := sent + 1 - rest.Stalled; uint64(dropped) != slowest(b).Dropped {
				t.Errorf("stalled subscriber received %d of %d, so %d were dropped; counted were %d", rest.Stalled, sent+1, dropped, slowest(b).Dropped)
			}
			newest := rest.Last == sent-1
			if !rest.Ordered || rest.First != 0 || newest != (policy == topology.DropOldest) {
				t.Errorf("with %s the stalled subscriber received %d to %d of %d, in order: %v", policy, rest.First, rest.Last, sent, rest.Ordered)
			}
		})
	}
}

// slowest returns the peer that has been dropped most messages for.
func slowest(b *Bus) Peer {
	var slowest Peer
	for _, p := range b.Status()[0].Peers {
		if p.Dropped >= slowest.Dropped && p.Type == "SUB" {
			slowest = p
		}
	}
	return slowest
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	b := start(t, roomy)
	in, out := endpoints(b)
	var got struct {
		Received, Lost int
		After          bool
	}
	python(t, "heartbeats.py", in, out, scaled(3, 60)).says(&got)
	if got.Received != 0 || got.Lost != 0 || !got.After {
		t.Errorf("while idle %d messages received, %d connections lost; a message got through after that: %v", got.Received, got.Lost, got.After)
	}
}

func TestManySubscriptions(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	var got struct {
		Got   int
		Right bool
	}
	count := scaled(10_000, 100_000)
	python(t, "subscriptions.py", in, out, count).says(&got)
	if !got.Right {
		t.Errorf("got %d of %s messages, each for another subscription", got.Got, count)
	}
}

func TestCancel(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	var got struct {
		Upstream      bool
		Before, After []string
	}
	python(t, "cancel.py", in, out).says(&got)
	if !got.Upstream {
		t.Error("an XPUB did not see the subscription to everything")
	}
	if diff := cmp.Diff([]string{"AB", "AB"}, got.Before); diff != "" {
		t.Errorf("subscribed twice to A, once to B (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"B", "B"}, got.After); diff != "" {
		t.Errorf("after A was cancelled (-want +got):\n%s", diff)
	}
}
