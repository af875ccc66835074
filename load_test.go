package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// A load is what the program load sends, and what came of it.
type load struct {
	url          string
	patience     time.Duration
	events, ms   int
	sent, failed atomic.Int64
	resumed      atomic.Int64
	resume       bool
	first        sync.Once
}

// loadMain is the program load. It sends GETs, and keeps event streams, WebSockets and uploads going, until it is interrupted and
// for at least -n GETs; what is under way then is brought to its end. It fails if more failed than may.
//
// Each client has one connection that it keeps. With a rate, the GETs are due at times of their own: who is late sends at once, so that
// a pause of the server is not a pause of the load.
func loadMain() {
	l := load{patience: patience}
	least := flag.Int64("n", 1000, "send at least so many GETs")
	end := flag.Bool("end", false, "do not wait to be interrupted")
	clients := flag.Int("c", 4, "send GETs from so many clients")
	rate := flag.Float64("rate", 0, "GETs a second, of all clients together; 0 is as many as there can be")
	sse := flag.Int("sse", 0, "keep so many streams of server-sent events going: /sse")
	sockets := flag.Int("ws", 0, "keep so many WebSockets going: /ws")
	uploads := flag.Int("upload", 0, "keep so many uploads going: /upload")
	once := flag.Bool("once", false, "begin none of these another time when it has ended")
	allow := flag.Int64("allow", 0, "so many may fail")
	flag.IntVar(&l.events, "events", 20, "events of a stream, messages of a WebSocket, pieces of an upload")
	flag.IntVar(&l.ms, "ms", 50, "milliseconds between two of them")
	flag.BoolVar(&l.resume, "resume", false, "begin again what was cut off in the middle other than a GET, as browsers do, and count it as resumed")
	flag.DurationVar(&l.patience, "patience", l.patience, "for the answer to one GET")
	flag.Parse()
	l.url = strings.TrimSuffix(flag.Arg(0), "/")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *end {
		stop()
	}

	var g sync.WaitGroup
	var due atomic.Int64
	begun := time.Now()
	over := func() bool { return ctx.Err() != nil && l.sent.Load() >= *least }
	for range *clients {
		g.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: l.patience}
			defer client.CloseIdleConnections()
			for !over() {
				if *rate > 0 {
					at := begun.Add(time.Duration(float64(due.Add(1)) / *rate * float64(time.Second)))
					<-time.After(time.Until(at))
				}
				l.sent.Add(1)
				l.count("GET", fetch(client, flag.Arg(0)))
			}
		})
	}
	keep := func(n int, what string, session func() error) *atomic.Int64 {
		var done atomic.Int64
		for range n {
			g.Go(func() {
				for ctx.Err() == nil {
					l.count(what, session())
					done.Add(1)
					if *once {
						return
					}
				}
			})
		}
		return &done
	}
	streams, talks, files := keep(*sse, "SSE", l.stream), keep(*sockets, "WebSocket", l.talk), keep(*uploads, "upload", l.upload)
	g.Wait()
	fmt.Printf("sent %d failed %d\n", l.sent.Load(), l.failed.Load())
	if *sse+*sockets+*uploads > 0 {
		fmt.Printf("streams %d websockets %d uploads %d resumed %d\n", streams.Load(), talks.Load(), files.Load(), l.resumed.Load())
	}
	fmt.Printf("%.0f GETs a second\n", float64(l.sent.Load())/time.Since(begun).Seconds())
	if l.failed.Load() > *allow {
		os.Exit(1)
	}
}

func (l *load) count(what string, err error) {
	if err != nil {
		l.failed.Add(1)
		l.first.Do(func() {
			fmt.Fprintf(os.Stderr, "first failure, at %s: %s: %v\n", time.Now().Format(time.TimeOnly+".000"), what, err)
		})
	}
}

// again reports whether what ended with err is to be begun again.
func (l *load) again(err error) bool {
	if err != nil && l.resume {
		l.resumed.Add(1)
		return true
	}
	return false
}

// stream reads a stream of events to its end and sees that it misses none.
func (l *load) stream() error {
	last := 0
	for {
		err := l.listen(&last)
		if !l.again(err) {
			return err
		}
	}
}

func (l *load) listen(last *int) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/sse?events=%d&ms=%d", l.url, l.events, l.ms), nil)
	if err != nil {
		return err
	}
	if *last > 0 {
		request.Header.Set("Last-Event-ID", strconv.Itoa(*last))
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	for lines := bufio.NewReader(response.Body); ; {
		line, err := lines.ReadString('\n')
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "id: "); ok {
			if *last++; id != strconv.Itoa(*last) {
				return fmt.Errorf("event %s came where %d was due", id, *last)
			}
		}
		if err != nil {
			if err == io.EOF && *last == l.events {
				return nil
			}
			return fmt.Errorf("after event %d of %d: %w", *last, l.events, err)
		}
	}
}

// talk says so many messages over a WebSocket and sees that each comes back.
func (l *load) talk() error {
	said := 0
	for {
		err := l.converse(&said)
		if !l.again(err) {
			return err
		}
	}
}

func (l *load) converse(said *int) error {
	ctx := context.Background()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(l.url, "http")+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for ; *said < l.events; *said++ {
		want := fmt.Sprint("message ", *said)
		if err := conn.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
			return fmt.Errorf("say message %d of %d: %w", *said, l.events, err)
		}
		_, got, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("hear message %d of %d: %w", *said, l.events, err)
		}
		if string(got) != want {
			return fmt.Errorf("%q came back as %q", want, got)
		}
		<-time.After(time.Duration(l.ms) * time.Millisecond)
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}

// upload sends a body in pieces and sees that all of it arrived.
func (l *load) upload() error {
	for {
		err := l.send()
		if !l.again(err) {
			return err
		}
	}
}

func (l *load) send() error {
	piece := bytes.Repeat([]byte("upload! "), 1<<10)
	sum := sha256.New()
	body, w := io.Pipe()
	go func() {
		for range l.events {
			sum.Write(piece)
			if _, err := w.Write(piece); err != nil {
				return
			}
			<-time.After(time.Duration(l.ms) * time.Millisecond)
		}
		w.Close()
	}()
	defer body.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(http.MethodPost, l.url+"/upload", body)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, answer)
	}
	if want := fmt.Sprintf("%d %x\n", l.events*len(piece), sum.Sum(nil)); string(answer) != want {
		return fmt.Errorf("uploaded %q, which arrived as %q", want, answer)
	}
	return nil
}

func fetch(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return err
}
