package proxy

// A sieve stands between a connection and net/http, which gets to read only what has been checked.
type sieve struct {
	// check finds out which part of p net/http may have. p begins where that ended the last time, or with what was held then
	// because it was not whole. It sets fault if something is wrong, and more if the rest of p is to be checked when net/http
	// asks for it.
	check   func(p []byte) (from, to int)
	instead string // of what is wrong, if check set it
	fault   error  // why there is nothing more
	more    bool
	held    []byte // has been read, but not handed on
	ready   int    // bytes of that which may be
}

// hand hands on what may be, of which there is some.
func (s *sieve) hand(p []byte) int {
	n := copy(p, s.held[:s.ready])
	s.drop(n)
	s.ready -= n
	return n
}

// keep holds what is to be checked later.
func (s *sieve) keep(p []byte) {
	s.held = append(s.held, p...)
	s.more = true
}

func (s *sieve) drop(n int) {
	if s.held = s.held[n:]; len(s.held) == 0 {
		s.held = nil
	}
}

// sift checks what is held.
func (s *sieve) sift() {
	s.more = false
	from, to := s.check(s.held)
	s.drop(from)
	s.settle(to - from)
}

// take checks what has been read into p, net/http's memory. It returns how much of it net/http has so; otherwise it is held.
func (s *sieve) take(p []byte) int {
	if len(s.held) > 0 {
		s.keep(p)
		return 0
	}
	from, to := s.check(p)
	if from == 0 && to == len(p) {
		return to
	}
	s.held = append(s.held, p[from:]...)
	s.settle(to - from)
	return 0
}

// settle says how much of what is held may be handed on.
func (s *sieve) settle(ready int) {
	if s.ready = ready; s.instead != "" {
		s.held, s.ready, s.instead = []byte(s.instead), len(s.instead), ""
	}
}
