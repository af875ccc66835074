package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mainstay/schedule"
	"mainstay/topology"
)

// A job is what a service with a schedule has besides: when it is due, the run under way, and what became of those before it.
// It is the service's goroutine's own.
//
// A run is an instance in the service's first place, made of the specification that is wanted when it begins. It has ended when the
// instance has, which restarts its process as its restart policy says. What changes about the specification meanwhile counts from the next run.
type job struct {
	ledger ledger
	clock  schedule.Clock
	now    schedule.Moment  // of this turn
	ticker *schedule.Ticker // nil: the job is stopped

	run      *Run      // under way; nil: none
	instance *instance // that is it
	began    time.Time // when, by the clock that nobody sets
	ending   RunResult // what becomes of the run because it was told to stop; empty: it was not

	skipped     uint64
	lastSkipped time.Time
}

var (
	errNoJob      = errors.New("it is no job: it has no schedule")
	errStoppedJob = errors.New("it is stopped; start it")
)

// A trigger asks for a run now.
type trigger struct {
	answer chan<- triggered // has room for it
}

type triggered struct {
	run Run
	err error
}

// Trigger has a job run now, whenever it is due. It returns once that is decided; what becomes of the run, which is told from others
// by when it was due, is told by Status. An error says why there will be none: it is no job, it is stopped, or a run is under way
// and the job's overlap is skip.
func (s *Supervisor) Trigger(service string) (Run, error) {
	s.mu.Lock()
	svc, ok := s.services[service]
	s.mu.Unlock()
	if !ok {
		return Run{}, fmt.Errorf("trigger %s: there is no such service", service)
	}
	answer := make(chan triggered, 1)
	select {
	case svc.triggers <- trigger{answer}:
		t := <-answer
		return t.run, t.err
	case <-svc.done:
		return Run{}, fmt.Errorf("trigger %s: the service has been removed", service)
	}
}

// isJob reports whether the service is one, or has yet to end the last run as one.
func (s *service) isJob() bool { return s.want.Schedule != nil || s.job != nil }

// turn is reconcile for a job: it begins runs that are due, stops those that take too long, and notes how they end.
func (s *service) turn() (look time.Duration) {
	if s.job == nil {
		s.job = s.newJob()
	}
	j, now := s.job, s.job.clock()
	j.now = now
	waited := j.ledger.Queued
	runs := s.want.Schedule != nil && !s.want.Stopped
	s.reached, s.updating, s.phase = s.target.revision, false, "" // a job is never in the middle of an update

	s.clearFor(j, runs)
	if j.run != nil {
		s.oversee(now)
	}
	if runs {
		s.plan(now)
	} else {
		j.ticker = nil
		j.ledger.opened = true
		if !isClosed(s.site.suspended) { // or it waits for who goes on
			j.ledger.Queued = nil
		}
	}
	s.answer(func() error {
		switch {
		case s.want.Schedule == nil:
			return errNoJob
		case s.want.Stopped:
			return errStoppedJob
		}
		return nil
	}())
	switch p := s.places[1]; {
	case runs && p.empty() && j.ledger.Queued != nil:
		s.begin(p, *j.ledger.Queued, now)
	case j.ledger.Queued != waited:
		j.ledger.save(s.log)
	}
	if s.want.Schedule == nil && j.run == nil {
		s.job = nil
		s.stir() // what it is now has its turn
		return 0
	}
	if j.run != nil && s.want.Schedule != nil && s.want.Schedule.Timeout > 0 && j.ending == "" {
		look = max(time.Millisecond, s.want.Schedule.Timeout-time.Since(j.began))
	}
	if j.ticker != nil {
		look = sooner(look, max(time.Millisecond, j.ticker.Pause(now)))
	}
	return look
}

// clearFor empties the places of what is no run of the job's, and all of them if it is not to run.
func (s *service) clearFor(j *job, runs bool) {
	for _, p := range s.sorted() {
		p.retired = p.replica != 1 || !runs
		s.dismissNext(p)
		if p.current != nil && p.current != j.instance {
			p.dismissCurrent()
		}
		p.clear()
		if p.retired && p.empty() {
			delete(s.places, p.replica)
		}
	}
	if runs {
		s.place(1, s.want).retired = false
	}
	if !runs && j.run != nil {
		s.endRun(RunStopped)
	}
}

// plan looks whether the job is due, and goes along another schedule if it has one.
func (s *service) plan(now schedule.Moment) {
	j, spec := s.job, *s.want.Schedule
	if j.ticker == nil || j.ledger.Schedule != spec.Cron || j.ledger.TimeZone != spec.TimeZone {
		since := j.ledger.Done
		if j.ledger.Schedule != spec.Cron || j.ledger.TimeZone != spec.TimeZone || j.ledger.opened {
			since = time.Time{} // nothing of another schedule's, or of when it was stopped, has been missed
		}
		place, err := time.LoadLocation(spec.TimeZone)
		if spec.TimeZone == "" || err != nil {
			place = time.Local
		}
		cron, parseErr := schedule.Parse(spec.Cron, place)
		if err != nil || parseErr != nil { // both were checked when the file was read
			s.log.Error("schedule unreadable", "schedule", spec.Cron, "time_zone", spec.TimeZone, "err", err, "parse_err", parseErr)
		}
		j.ticker = schedule.NewTicker(cron, since, now)
		j.ledger.Schedule, j.ledger.TimeZone, j.ledger.Done, j.ledger.opened = spec.Cron, spec.TimeZone, j.ticker.Done(), true
		j.ledger.save(s.log)
	}
	turn := j.ticker.Look(now)
	if turn == (schedule.Turn{}) {
		return
	}
	j.ledger.Done = j.ticker.Done()
	defer j.ledger.save(s.log)
	if !turn.Skipped.IsZero() {
		s.log.Warn("clock was set forward, runs left out", "last", turn.Skipped)
	}
	if !turn.Missed.IsZero() {
		s.log.Warn("runs missed", "last", turn.Missed, "policy", spec.Missed)
		s.site.metrics.ran(s.name, runMissed)
	}
	switch {
	case !turn.Due.IsZero():
		s.due(Run{Due: turn.Due, Reason: RunScheduled})
	case !turn.Missed.IsZero() && spec.Missed == topology.MissedOnce:
		s.due(Run{Due: turn.Missed, Reason: RunCaughtUp})
	}
}

// due decides what becomes of r, which is to begin now. The error says why nothing.
func (s *service) due(r Run) error {
	j := s.job
	switch overlap := s.want.Schedule.Overlap; {
	case j.run == nil && j.ledger.Queued == nil:
		j.ledger.Queued = &r
	case overlap == topology.OverlapReplace:
		if j.run != nil {
			s.endRun(RunReplaced)
		}
		j.ledger.Queued = &r
	case overlap == topology.OverlapQueue:
		if j.ledger.Queued == nil {
			j.ledger.Queued = &r
		}
	default:
		err := fmt.Errorf("a run is under way since %s, and %s's overlap is skip", s.underWaySince(), s.name)
		if r.Reason != RunTriggered {
			s.log.Warn("run skipped", "due", r.Due, "why", err)
			s.site.metrics.ran(s.name, runSkipped)
			j.skipped++
			j.lastSkipped = r.Due
		}
		return err
	}
	return nil
}

func (s *service) underWaySince() string {
	if s.job.run == nil {
		return "just now"
	}
	return s.job.run.Started.Format(time.TimeOnly)
}

// answer decides for all who have asked for a run: nothing comes of it if err says why. They are told by tell.
func (s *service) answer(err error) {
	for _, t := range s.asked {
		r, err := Run{}, err
		if err == nil {
			r, err = s.triggered()
		}
		if err != nil {
			err = fmt.Errorf("trigger %s: %w", s.name, err)
		}
		s.answers = append(s.answers, func() { t.answer <- triggered{r, err} })
	}
	s.asked = nil
}

// triggered has a run begin, and returns it.
func (s *service) triggered() (Run, error) {
	j := s.job
	r := Run{Due: j.now.Wall, Reason: RunTriggered, Result: RunRunning}
	if j.run != nil || j.ledger.Queued != nil {
		r.Result = RunQueued
	}
	waits := j.ledger.Queued
	if err := s.due(r); err != nil {
		return Run{}, err
	}
	if waits != nil && j.ledger.Queued == waits { // it is the one that waits already
		r.Due = waits.Due
	}
	return r, nil
}

// tell tells those who have asked for a run what has been decided. Status shows it by then.
func (s *service) tell() {
	for _, answer := range s.answers {
		answer()
	}
	s.answers = nil
}

// begin begins a run.
func (s *service) begin(p *place, r Run, now schedule.Moment) {
	j := s.job
	r.Started, r.Result = now.Wall, RunRunning
	p.restarts = 0
	p.current = s.start(p, s.target)
	j.run, j.instance, j.began, j.ending = &r, p.current, time.Now(), ""
	j.ledger.Running, j.ledger.Queued = &r, nil
	j.ledger.save(s.log)
	s.log.Info("run began", "due", r.Due, "reason", r.Reason)
}

// endRun stops the run under way, of which result becomes.
func (s *service) endRun(result RunResult) {
	j := s.job
	if j.ending == "" {
		j.ending = result
	}
	if p := s.places[1]; p != nil && p.current != nil && p.current == j.instance {
		p.dismissCurrent()
	}
}

// oversee stops the run under way if it takes too long, and notes its end.
func (s *service) oversee(now schedule.Moment) {
	j := s.job
	l := j.instance.now()
	j.run.Attempts = attempts(l)
	if l.state != StateStopped && l.state != StateFailed {
		if spec := s.want.Schedule; spec != nil && spec.Timeout > 0 && time.Since(j.began) >= spec.Timeout {
			s.endRun(RunTimedOut)
		}
		return
	}
	if l.state == StateStopped && l.reason == "" && isClosed(s.site.suspended) {
		j.run, j.instance = nil, nil // it goes on without us, and is in the ledger
		return
	}
	r := *j.run
	r.Ended = now.Wall
	switch {
	case l.state == StateFailed && (l.lost || l.reason == endedUnseen):
		r.Result, r.Cause = RunUnknown, l.reason
	case l.state == StateFailed:
		r.Result, r.Cause = RunFailed, l.reason
	case l.reason == string(outcomeCompleted):
		r.Result = RunSucceeded
	case j.ending == RunTimedOut:
		r.Result, r.Cause = RunTimedOut, j.timeout(s.want)
	default:
		r.Result = RunStopped
		if j.ending != "" {
			r.Result = j.ending
		}
	}
	if p := s.places[1]; p != nil && p.current == j.instance {
		p.dismissCurrent()
		p.clear()
	}
	j.run, j.instance, j.ending = nil, nil, ""
	s.note(r)
}

// timeout says that a run took too long, and what it was doing last.
func (j *job) timeout(spec topology.Service) string {
	limit := ""
	if spec.Schedule != nil {
		limit = " of " + spec.Schedule.Timeout.String()
	}
	return "stopped at its timeout" + limit + j.instance.lastWords()
}

// note keeps what became of a run.
func (s *service) note(r Run) {
	j := s.job
	j.ledger.Running = nil
	j.ledger.Runs = slices.Insert(j.ledger.Runs, 0, r)
	j.ledger.Runs = j.ledger.Runs[:min(len(j.ledger.Runs), runsKept)]
	if r.Result == RunSucceeded {
		j.ledger.Succeeded = r.Ended
	}
	j.ledger.save(s.log)
	s.site.metrics.ran(s.name, r.Result)
	log := s.log.With("due", r.Due, "took", r.Ended.Sub(r.Started).Round(time.Millisecond), "attempts", r.Attempts)
	switch r.Result {
	case RunSucceeded:
		log.Info("run succeeded")
	case RunFailed, RunTimedOut:
		log.Error("run failed", "why", r.Cause)
	default:
		log.Warn("run did not finish", "result", r.Result)
	}
}

// attempts returns how many processes an instance has tried to be.
func attempts(l life) int {
	if l.launched.IsZero() && l.failures == 0 && l.state != StateFailed {
		return 0
	}
	return l.restarts + 1
}

// newJob returns the service's job as it was when Mainstay last knew of it. A run that was under way then goes on if the instance that
// it was is in its place.
func (s *service) newJob() *job {
	j := &job{clock: s.site.clock, ledger: openLedger(s.stateDir, s.name, s.log)}
	r := j.ledger.Running
	if r == nil {
		return j
	}
	if p := s.places[1]; p != nil && p.current != nil && p.current.spec().Schedule != nil {
		j.run, j.instance = r, p.current
		j.began = time.Now().Add(-max(0, j.clock().Wall.Sub(r.Started)))
		return j
	}
	s.job = j
	lost := *r
	lost.Ended, lost.Result, lost.Cause = j.clock().Wall, RunUnknown, endedUnseen
	s.note(lost)
	return j
}

// lastWords returns the last lines of the instance's last process, to follow a message.
func (i *instance) lastWords() string {
	i.mu.Lock()
	words := i.words
	i.mu.Unlock()
	if words == nil {
		return ""
	}
	return words.String()
}

// publishJob completes what others see of a job.
func (s *service) publishJob(v *view, f *fact) {
	v.job, v.updating, v.desired = s.job.status(s.want), false, 0
	if s.job.run != nil {
		v.desired = 1
	}
	if last := v.job.Last; last != nil {
		f.completed = last.Result == RunSucceeded
		if !f.completed && f.problem == "" {
			f.problem = fmt.Sprintf("its last run %s: %s", last.Result, last.Cause)
		}
	}
}

// state returns the state of a job's service, and why it is no better than that; of its instance there is a reason to tell.
func (st *JobStatus) state(reason string) (string, string) {
	switch {
	case len(st.Runs) > 0 && st.Runs[0].Ended.IsZero():
		return ServiceRunning, reason
	case st.Next.IsZero():
		return ServiceStopped, ""
	case st.Last != nil && st.Last.Cause != "":
		return ServiceScheduled, fmt.Sprintf("the last run %s: %s", st.Last.Result, st.Last.Cause)
	}
	return ServiceScheduled, ""
}

// status returns how the job is doing.
func (j *job) status(spec topology.Service) *JobStatus {
	st := &JobStatus{
		Schedule: j.ledger.Schedule, TimeZone: j.ledger.TimeZone, Queued: j.ledger.Queued != nil,
		Skipped: j.skipped, LastSkipped: j.lastSkipped, LastSuccess: j.ledger.Succeeded,
		Runs: slices.Clone(j.ledger.Runs),
	}
	if spec.Schedule != nil {
		st.Schedule, st.TimeZone = spec.Schedule.Cron, spec.Schedule.TimeZone
	}
	if j.ticker != nil {
		st.Next = j.ticker.Next()
	}
	if len(st.Runs) > 0 {
		last := st.Runs[0]
		st.Last = &last
	}
	if j.run != nil {
		st.Runs = slices.Insert(st.Runs, 0, *j.run)
	}
	return st
}
