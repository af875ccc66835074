package supervisor

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A LogQuery selects lines of output.
type LogQuery struct {
	Of     []LogSource // whose lines; none: those of all services, with those that come
	Tail   int         // how many of the last lines of each instance first; negative: all that are kept
	Since  time.Time   // no lines before that; zero: all
	Until  time.Time   // nor after that, and it is not followed for longer; zero: for ever
	Grep   *regexp.Regexp
	Follow bool // go on with new lines until ctx is done
	// After is, by instance, the time of a line to go on after, whatever Tail and Since say: for who has followed before.
	After map[string]time.Time

	otherwise time.Time // of instances that After does not have; zero: Tail and Since say where they begin
}

// after returns the time after which the lines of an instance are asked for, whatever Tail and Since say.
func (q LogQuery) after(instance string) (at time.Time, ok bool) {
	if at, ok = q.After[instance]; !ok {
		at, ok = q.otherwise, !q.otherwise.IsZero()
	}
	return at, ok
}

// A LogSource is a service, or one of its instances.
type LogSource struct {
	Service string
	Replica int // 0: all
}

func (s LogSource) String() string {
	if s.Replica == 0 {
		return s.Service
	}
	return instanceID(s.Service, s.Replica)
}

// filters reports whether q leaves lines out because of what they are.
func (q LogQuery) filters() bool { return q.Grep != nil || !q.Since.IsZero() || !q.Until.IsZero() }

// selects reports whether q asks for a line like l.
func (q LogQuery) selects(l LogLine) bool {
	return !l.Time.Before(q.Since) && (q.Until.IsZero() || !l.Time.After(q.Until)) && (q.Grep == nil || q.Grep.MatchString(l.Text))
}

// A LogLine is one line of an instance's output.
type LogLine struct {
	Time     time.Time `json:"time"`
	Instance string    `json:"instance"` // "web/2"
	Stream   string    `json:"stream"`   // stdout or stderr; mainstay for a word of its own about lines that were skipped
	Text     string    `json:"text"`     // without the line's end; invalid UTF-8 is replaced
	Partial  bool      `json:"partial,omitempty"`
}

// Logs calls emit with each line that q selects, oldest first, until there is no more
// or, following, until ctx is done or the last of the services that q asks for is removed. Those who come go on being followed. A
// follower that is slower than the services misses lines, and is told so. It returns emit's error, ctx's if it is done before the last
// line, or an error if there is no such service or instance.
func (s *Supervisor) Logs(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	return s.site.archive.read(ctx, q, emit)
}

// followerLines is how many lines wait for a follower before it misses some.
const followerLines = 4096

// A follower gets lines live.
type follower struct {
	of    []LogSource // none: all
	lines chan followed
	over  chan struct{} // closed when there will be no more
	once  sync.Once
	// behind has room for one: a line that the disk has did not go to lines, which were too many.
	behind chan struct{}

	outputs map[string]*output // by instance, that it follows, closed ones too; guarded by the archive's mutex

	// Of who reads.
	seen map[string]time.Time // by instance, the last line that it has or will have
}

type followed struct {
	LogLine
	missed int  // lines of the same instance before it that there was no room for
	kept   bool // on the disk, like those that were missed
}

func (f *follower) end() { f.once.Do(func() { close(f.over) }) }

func (f *follower) fallBehind() {
	select {
	case f.behind <- struct{}{}:
	default:
	}
}

func (f *follower) wants(service string, replica int) bool {
	return len(f.of) == 0 || slices.ContainsFunc(f.of, func(s LogSource) bool {
		return s.Service == service && (s.Replica == 0 || s.Replica == replica)
	})
}

// knows reports whether f follows something of the service.
func (f *follower) knows(service string) bool {
	for _, o := range f.outputs {
		if o.journal.service == service {
			return true
		}
	}
	return false
}

// servicesLocked returns the names of those whose lines f gets, of which there may be none any more.
func (f *follower) servicesLocked(a *archive) []string {
	if len(f.of) == 0 {
		return slices.Sorted(maps.Keys(a.journals))
	}
	var names []string
	for _, s := range f.of {
		if !slices.Contains(names, s.Service) {
			names = append(names, s.Service)
		}
	}
	return names
}

// hopesLocked reports whether there may be more lines for f.
func (f *follower) hopesLocked(a *archive) bool {
	return slices.ContainsFunc(f.servicesLocked(a), func(name string) bool { return a.journals[name] != nil })
}

func (a *archive) read(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	outputs := map[string]*output{}
	for {
		behind, err := a.readOnce(ctx, &q, outputs, emit)
		if !behind || err != nil {
			return err
		}
	}
}

// readOnce is read until there is no more, or until lines have come faster than they are read here. Then it is behind: what
// was missed is on the disk, q asks for what comes next, and outputs are those that were followed, of which some may be closed.
func (a *archive) readOnce(ctx context.Context, q *LogQuery, outputs map[string]*output, emit func(LogLine) error) (behind bool, err error) {
	f := &follower{of: q.Of, over: make(chan struct{}), behind: make(chan struct{}, 1), outputs: outputs, seen: map[string]time.Time{}}
	if q.Follow {
		f.lines = make(chan followed, followerLines)
	}
	begun := time.Now()
	all, err := a.enter(f, q.Follow)
	defer a.leave(f)
	if err != nil {
		return false, err
	}
	if err := history(ctx, all, f, *q, emit); err != nil || !q.Follow {
		return false, err
	}
	if behind, err = f.follow(ctx, q, emit); behind {
		q.After, q.otherwise = f.seen, begun.Add(-1)
	}
	return behind, err
}

// follow emits lines as they come until there will be no more or f is behind. Then it reports so, and q no longer follows if its time is over.
func (f *follower) follow(ctx context.Context, q *LogQuery, emit func(LogLine) error) (behind bool, err error) {
	var until <-chan time.Time
	if !q.Until.IsZero() {
		t := time.NewTimer(time.Until(q.Until))
		defer t.Stop()
		until = t.C
	}
	over := f.over
	rest := -1 // lines until the end; negative: it has not come
	for rest != 0 {
		select {
		case l := <-f.lines:
			if l.missed > 0 && l.kept {
				return true, nil
			}
			f.seen[l.Instance] = l.Time
			if err := l.tell(*q, emit); err != nil {
				return false, err
			}
			if rest > 0 {
				rest--
			}
		case <-f.behind:
			return true, nil
		case <-over:
			rest, over, until = len(f.lines), nil, nil
		case <-until:
			q.Follow = false
			rest, over, until = len(f.lines), nil, nil
		case <-ctx.Done():
			return false, nil
		}
	}
	return len(f.behind) > 0, nil
}

// tell emits the line if q selects it, and before it that others were missed.
func (l followed) tell(q LogQuery, emit func(LogLine) error) error {
	if l.missed > 0 {
		text := fmt.Sprintf("%d lines skipped: they came faster than they were read here", l.missed)
		if err := emit(LogLine{Time: l.Time, Instance: l.Instance, Stream: "mainstay", Text: text}); err != nil {
			return err
		}
	}
	if !q.selects(l.LogLine) {
		return nil
	}
	return emit(l.LogLine)
}

// appendLine appends l in the format of the Kubernetes Container Runtime Interface, which collectors of logs read:
// time, stream, P for partial or F for full, text.
func appendLine(b []byte, l LogLine) []byte {
	b = l.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, l.Stream...)
	if l.Partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	return append(append(b, l.Text...), '\n')
}

// parseLine reads what appendLine wrote, without the end of the line. It refuses what somebody else wrote.
func parseLine(s string) (l LogLine, ok bool) {
	at, rest, _ := strings.Cut(s, " ")
	stream, rest, _ := strings.Cut(rest, " ")
	tag, text, found := strings.Cut(rest, " ")
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil || !found || stream != "stdout" && stream != "stderr" || tag != "P" && tag != "F" {
		return LogLine{}, false
	}
	return LogLine{Time: t, Stream: stream, Text: text, Partial: tag == "P"}, true
}
