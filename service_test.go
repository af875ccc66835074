package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// habits are what the program service is told by its flags: everything that a service may do to whoever supervises it.
type habits struct {
	listen, listenFD, ignoreTerm, holdStdout, grandchild, setsidGrandchild bool
	binary, noNewline, environ, openFDs, limits, notify, stopping          bool
	readyAfter, unreadyAfter, dieAfter, stopTime, slow, cpu                time.Duration
	watchdog, watchdogUntil, extend                                        time.Duration
	exit, spew, longLine, spewRate, alloc, zombies, backlog                int
	failRatio                                                              float64
	signalSelf, say, status, once, address                                 string
}

func (h *habits) flags(f *flag.FlagSet) {
	f.BoolVar(&h.listen, "listen", false, "serve HTTP at HOST:PORT; see handler for what can be asked")
	f.StringVar(&h.address, "address", "", "serve HTTP here")
	f.BoolVar(&h.listenFD, "listen-fd", false, "serve HTTP on the listening socket that is descriptor 3, as sd_listen_fds(3) has it")
	f.DurationVar(&h.readyAfter, "ready-after", 0, "answer /readyz with 503 (and do not say READY=1) until then")
	f.DurationVar(&h.unreadyAfter, "unready-after", 0, "answer /readyz with 503 from then on")
	f.DurationVar(&h.dieAfter, "die-after", 0, "exit by itself")
	f.IntVar(&h.exit, "exit", 0, "the status of that exit")
	f.StringVar(&h.signalSelf, "signal-self", "", "end by this signal (SEGV, ABRT, KILL, TERM) instead")
	f.StringVar(&h.once, "once", "", "do as -die-after says only if this file does not exist, and make it")
	f.BoolVar(&h.ignoreTerm, "ignore-term", false, "do nothing on SIGTERM")
	f.DurationVar(&h.stopTime, "stop-time", 0, "take so long to end after SIGTERM")
	f.BoolVar(&h.grandchild, "grandchild", false, "leave a child behind that ignores SIGTERM")
	f.BoolVar(&h.setsidGrandchild, "setsid-grandchild", false, "leave a child behind that ignores SIGTERM, in a session of its own")
	f.BoolVar(&h.holdStdout, "hold-stdout", false, "let such a child hold the output open")
	f.IntVar(&h.zombies, "zombies", 0, "leave so many orphans that end at once")
	f.StringVar(&h.say, "say", "", "write this line")
	f.IntVar(&h.spew, "spew", 0, "write so many numbered lines")
	f.IntVar(&h.spewRate, "spew-rate", 0, "write so many bytes in lines each second, for ever")
	f.IntVar(&h.longLine, "long-line", 0, "write a line of so many bytes")
	f.BoolVar(&h.binary, "binary", false, "write NUL and bytes that are no UTF-8")
	f.BoolVar(&h.noNewline, "no-newline", false, "write last words without the end of a line when it ends")
	f.BoolVar(&h.environ, "environ", false, "write the environment")
	f.BoolVar(&h.openFDs, "open-fds", false, "write the open descriptors")
	f.BoolVar(&h.limits, "limits", false, "write the limit of open files, the umask, and the signals that are ignored and blocked")
	f.IntVar(&h.alloc, "alloc", 0, "use so many bytes of memory")
	f.DurationVar(&h.cpu, "cpu", 0, "use a core for so long")
	f.DurationVar(&h.slow, "slow", 0, "take so long for each request")
	f.Float64Var(&h.failRatio, "fail-ratio", 0, "answer this share of the requests to / with 500")
	f.IntVar(&h.backlog, "hang", 0, "never answer the first so many requests to /readyz")
	f.BoolVar(&h.notify, "notify", false, "say READY=1 to NOTIFY_SOCKET (sd_notify(3)) when ready")
	f.BoolVar(&h.stopping, "stopping", false, "say STOPPING=1 on SIGTERM")
	f.StringVar(&h.status, "status", "", "say STATUS= and this")
	f.DurationVar(&h.watchdog, "watchdog", 0, "say WATCHDOG=1 so often")
	f.DurationVar(&h.watchdogUntil, "watchdog-until", 0, "and no more from then on")
	f.DurationVar(&h.extend, "extend", 0, "ask for twice so much time each such time while it is not ready or stops (EXTEND_TIMEOUT_USEC)")
}

// serviceMain is the program service.
func serviceMain() {
	var h habits
	h.flags(flag.CommandLine)
	flag.Parse()
	terms := make(chan os.Signal, 16)
	signal.Notify(terms, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	begun := time.Now()
	h.leaveBehind()
	h.write(os.Stdout)
	h.use()
	if h.listen || h.listenFD || h.address != "" {
		h.serve(begun)
	}
	go h.tell(begun)
	if h.once != "" {
		if _, err := os.Stat(h.once); err == nil {
			h.dieAfter = 0
		} else if err := os.WriteFile(h.once, nil, 0o600); err != nil {
			fmt.Println(err)
		}
	}
	die := make(<-chan time.Time)
	if h.dieAfter > 0 {
		die = time.After(h.dieAfter)
	}
	for {
		select {
		case <-die:
			h.end()
		case sig := <-terms:
			fmt.Println("got", sig)
			if sig == syscall.SIGHUP || h.ignoreTerm {
				continue
			}
			h.stop()
			h.exit, h.signalSelf = 0, ""
			h.end()
		}
	}
}

// end is the service's exit.
func (h *habits) end() {
	if h.noNewline {
		fmt.Print("last words")
	}
	if h.signalSelf != "" {
		sig := map[string]syscall.Signal{"SEGV": syscall.SIGSEGV, "ABRT": syscall.SIGABRT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}[h.signalSelf]
		signal.Reset(sig)
		// The Go runtime keeps handlers of its own for some; a shell in our place has none.
		err := syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -" + h.signalSelf + " $$"}, os.Environ())
		fmt.Println(err)
	}
	os.Exit(h.exit)
}

// stop takes the time that the service needs to stop.
func (h *habits) stop() {
	if h.stopping {
		notify("STOPPING=1")
	}
	over := time.After(h.stopTime)
	for h.extend > 0 {
		notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (2 * h.extend).Microseconds()))
		select {
		case <-over:
			return
		case <-time.After(h.extend):
		}
	}
	<-over
}

// tell says to NOTIFY_SOCKET what is to be said there.
func (h *habits) tell(begun time.Time) {
	if h.status != "" {
		notify("STATUS=" + h.status)
	}
	for left := h.readyAfter - time.Since(begun); left > 0; left = h.readyAfter - time.Since(begun) {
		if h.extend == 0 {
			<-time.After(left)
			break
		}
		notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (2 * h.extend).Microseconds()))
		<-time.After(min(left, h.extend))
	}
	if h.notify {
		notify("READY=1")
	}
	for h.watchdog > 0 && (h.watchdogUntil == 0 || time.Since(begun) < h.watchdogUntil) {
		notify("WATCHDOG=1")
		<-time.After(h.watchdog)
	}
}

// notify sends state to NOTIFY_SOCKET as sd_notify(3) does.
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		_, err = conn.Write([]byte(state))
	}
	if err != nil {
		fmt.Println("notify:", err)
	}
}

// notifyMain is the program notify: it sends its argument to NOTIFY_SOCKET, like anyone could.
func notifyMain() { notify(os.Args[1]) }

// leaveBehind starts the children that outlive the service.
func (h *habits) leaveBehind() {
	leave := func(setsid bool) {
		c := exec.Command("/bin/sh", "-c", `trap "" TERM HUP; while :; do sleep 0.2; done`)
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: setsid}
		if h.holdStdout {
			c.Stdout, c.Stderr = os.Stdout, os.Stderr
		}
		if err := c.Start(); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("child", c.Process.Pid)
	}
	if h.grandchild {
		leave(false)
	}
	if h.setsidGrandchild {
		leave(true)
	}
	if h.zombies > 0 {
		script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do (true &); i=$((i+1)); done", h.zombies)
		if err := exec.Command("/bin/sh", "-c", script).Run(); err != nil {
			fmt.Println(err)
		}
		fmt.Println("left", h.zombies)
	}
}

// write writes what is to be written at the start.
func (h *habits) write(w io.Writer) {
	if h.say != "" {
		fmt.Fprintln(w, h.say)
	}
	for i := range h.spew {
		fmt.Fprintf(w, "line %d\n", i)
	}
	if h.longLine > 0 {
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for left := h.longLine; left > 0; left -= len(chunk) {
			w.Write(chunk[:min(left, len(chunk))])
		}
		fmt.Fprintln(w, "\nafter the long line")
	}
	if h.binary {
		fmt.Fprint(w, "nul \x00 bad \xff\xfe end\n")
	}
	if h.environ {
		for _, kv := range os.Environ() {
			fmt.Fprintln(w, kv)
		}
	}
	if h.openFDs {
		fmt.Fprintln(w, descriptors())
	}
	if h.limits {
		var files syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
		mask := syscall.Umask(0)
		syscall.Umask(mask)
		fmt.Fprintf(w, "open files %d %d\numask %04o\n", files.Cur, files.Max, mask)
		// This program is written in Go, which has a say in its own signals; a shell shows what it was started with.
		out, err := exec.Command("grep", "-E", "^Sig(Ign|Blk):", "/proc/self/status").CombinedOutput()
		if err != nil {
			fmt.Fprintln(w, err)
		}
		w.Write(out)
	}
	if h.spewRate > 0 {
		go func() {
			line := append(bytes.Repeat([]byte("y"), 99), '\n')
			batch := bytes.Repeat(line, max(1, h.spewRate/100/len(line)))
			for range time.Tick(10 * time.Millisecond) {
				w.Write(batch)
			}
		}()
	}
}

// descriptors returns the open descriptors above stderr that the Go runtime has no need of: it reads its share of the machine in /proc and /sys.
func descriptors() string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err.Error()
	}
	var open []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if fd, _ := strconv.Atoi(e.Name()); err != nil || fd < 3 || strings.HasPrefix(target, "anon_inode:[event") || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/fs/cgroup/") {
			continue
		}
		open = append(open, e.Name()+"="+target)
	}
	return "descriptors: " + strings.Join(open, " ") + "."
}

// use uses memory and cores.
func (h *habits) use() {
	if h.alloc > 0 {
		held := make([]byte, h.alloc)
		for i := 0; i < len(held); i += 4096 {
			held[i] = 1
		}
		fmt.Println("holds", len(held))
		context.AfterFunc(context.Background(), func() { held[0] = 2 }) // never, but the collector cannot know
	}
	if h.cpu > 0 {
		go burn(h.cpu)
	}
}

func burn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// serve begins to answer requests.
func (h *habits) serve(begun time.Time) {
	var listener net.Listener
	var err error
	switch {
	case h.listenFD:
		if os.Getenv("LISTEN_FDS") != "1" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
			fmt.Printf("no socket was passed: LISTEN_FDS=%s LISTEN_PID=%s pid=%d\n", os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"), os.Getpid())
			os.Exit(1)
		}
		listener, err = net.FileListener(os.NewFile(3, "listener"))
	case h.address != "":
		listener, err = net.Listen("tcp", h.address)
	default:
		listener, err = net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("listens on", listener.Addr())
	go http.Serve(listener, h.handler(begun))
}

// handler answers:
//
//	/            who answers, in the words of GREETING
//	/readyz      200 or 503, as -ready-after, -unready-after and the last of /ready and /unready say
//	/healthz     200, and 503 after /sick
//	/pid /environ /fds
//	/slow?ms=    after so many milliseconds
//	/bytes?n=    so many bytes
//	/noise?n=&seed=  so many bytes that only the seed foretells, of a length that is told if the seed is even
//	/upload      the length and the SHA-256 of the body
//	/sse?events=&ms=  a stream of numbered events, one each so many milliseconds, from Last-Event-ID on
//	/ws          what is said over a WebSocket
//	/exit?status= /alloc?bytes= /burn?ms= /say?text= /notify?state= do what they are called
func (h *habits) handler(begun time.Time) http.Handler {
	var requests, hung atomic.Int64
	var forced, sick atomic.Int32 // forced: 1 ready, 2 unready
	instance := os.Getenv("MAINSTAY_SERVICE") + "/" + os.Getenv("MAINSTAY_REPLICA")
	number := func(r *http.Request, name string) int {
		n, _ := strconv.Atoi(r.FormValue(name)) // 0 where it is not given
		return n
	}
	state := func(w http.ResponseWriter, good bool) {
		if !good {
			http.Error(w, "not now", http.StatusServiceUnavailable)
		}
	}
	mux := http.NewServeMux()
	handle := func(path string, f func(w http.ResponseWriter, r *http.Request)) { mux.HandleFunc(path, f) }
	handle("/{$}", func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		if int64(float64(n)*h.failRatio) > int64(float64(n-1)*h.failRatio) {
			http.Error(w, "failed as asked", http.StatusInternalServerError)
			return
		}
		<-time.After(h.slow)
		fmt.Fprintf(w, "%s says %s\n", instance, os.Getenv("GREETING"))
	})
	handle("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if hung.Add(1) <= int64(h.backlog) {
			<-r.Context().Done()
			return
		}
		age := time.Since(begun)
		good := age >= h.readyAfter && (h.unreadyAfter == 0 || age < h.unreadyAfter)
		if f := forced.Load(); f != 0 {
			good = f == 1
		}
		state(w, good)
	})
	handle("/ready", func(http.ResponseWriter, *http.Request) { forced.Store(1) })
	handle("/unready", func(http.ResponseWriter, *http.Request) { forced.Store(2) })
	handle("/healthz", func(w http.ResponseWriter, _ *http.Request) { state(w, sick.Load() == 0) })
	handle("/sick", func(http.ResponseWriter, *http.Request) { sick.Store(1) })
	handle("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	handle("/fds", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, descriptors()) })
	handle("/environ", func(w http.ResponseWriter, _ *http.Request) {
		environment := os.Environ()
		slices.Sort(environment)
		fmt.Fprintln(w, strings.Join(environment, "\n"))
	})
	handle("/slow", func(w http.ResponseWriter, r *http.Request) {
		<-time.After(time.Duration(number(r, "ms")) * time.Millisecond)
		fmt.Fprintln(w, "at last", instance)
	})
	handle("/bytes", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", r.FormValue("n"))
		io.CopyN(w, zeros{}, int64(number(r, "n")))
	})
	handle("/noise", func(w http.ResponseWriter, r *http.Request) {
		if number(r, "seed")%2 == 0 {
			w.Header().Set("Content-Length", r.FormValue("n"))
		}
		io.CopyN(w, noise(number(r, "seed")), int64(number(r, "n")))
	})
	handle("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
	})
	handle("/sse", events)
	handle("/ws", echo)
	handle("/exit", func(_ http.ResponseWriter, r *http.Request) { os.Exit(number(r, "status")) })
	handle("/alloc", func(_ http.ResponseWriter, r *http.Request) {
		(&habits{alloc: number(r, "bytes")}).use()
	})
	handle("/burn", func(_ http.ResponseWriter, r *http.Request) { burn(time.Duration(number(r, "ms")) * time.Millisecond) })
	handle("/say", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.FormValue("text")) })
	handle("/notify", func(_ http.ResponseWriter, r *http.Request) { notify(r.FormValue("state")) })
	return mux
}

// noise reads as bytes without end that look random and are the same for the same seed.
func noise(seed int) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(seed))
	return rand.NewChaCha8(key)
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// events sends server-sent events.
func events(w http.ResponseWriter, r *http.Request) {
	count, _ := strconv.Atoi(r.FormValue("events"))
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	last, _ := strconv.Atoi(r.Header.Get("Last-Event-ID")) // 0 at the beginning
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := http.NewResponseController(w)
	for n := last + 1; n <= count; n++ {
		fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", n, n)
		if flusher.Flush() != nil {
			return
		}
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

// echo says over a WebSocket what is said there.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}
