package restic

// The bounds of a chunk. They and the window are part of the format: only who cuts at the same places finds that it has a chunk already.
const (
	minChunk  = 512 << 10
	maxChunk  = 8 << 20
	chunkMask = 1<<20 - 1 // a fingerprint with these bits zero ends a chunk: every 1 MiB on average
	window    = 64
)

// A cutter finds the ends of chunks by Rabin's fingerprint of the last 64 bytes (M. O. Rabin,
// "Fingerprinting by random polynomials", 1981): the remainder of those bytes, seen as a polynomial, modulo
// the repository's polynomial. A cutter is immutable.
type cutter struct {
	leave  [256]uint64 // what a byte contributes when it has just left the window
	reduce [256]uint64 // removes what has grown above the degree, and adds its remainder
}

func newCutter(p polynomial) *cutter {
	var c cutter
	for b := range polynomial(256) {
		c.leave[b] = uint64(p.shift(b, 8*window))
		c.reduce[b] = uint64(p.shift(b, polynomialDegree) | b<<polynomialDegree)
	}
	return &c
}

// find returns the first end in (from, to] at which the window's fingerprint ends a chunk of p, or 0. from must be at least the window.
//
// The fingerprint depends on nothing but the window. So four stretches are searched side by side, which a
// processor does in little more than the time of one: each step of one waits for its own table look-up only.
func (c *cutter) find(p []byte, from, to int) int {
	for ; to-from >= 4*stretch; from += 4 * stretch {
		if end := c.findInFour(p[from-window : from+4*stretch]); end != 0 {
			return from + end
		}
	}
	f := c.fingerprint(p[from-window : from])
	for i := from; i < to; i++ {
		f = f<<8 ^ c.reduce[byte(f>>(polynomialDegree-8))] ^ uint64(p[i]) ^ c.leave[p[i-window]]
		if f&chunkMask == 0 {
			return i + 1
		}
	}
	return 0
}

const stretch = 16 << 10

// findInFour searches the four stretches of p that follow its first window.
func (c *cutter) findInFour(p []byte) int {
	type windowAndStretch = *[window + stretch]byte // of constant size: no checks of bounds in the loop
	p0, p1, p2, p3 := windowAndStretch(p), windowAndStretch(p[stretch:]), windowAndStretch(p[2*stretch:]), windowAndStretch(p[3*stretch:])
	f0, f1, f2, f3 := c.fingerprint(p0[:window]), c.fingerprint(p1[:window]), c.fingerprint(p2[:window]), c.fingerprint(p3[:window])
	var ends [4]int
	for i := range stretch {
		in := i + window
		f0 = f0<<8 ^ c.reduce[byte(f0>>(polynomialDegree-8))] ^ uint64(p0[in]) ^ c.leave[p0[i]]
		f1 = f1<<8 ^ c.reduce[byte(f1>>(polynomialDegree-8))] ^ uint64(p1[in]) ^ c.leave[p1[i]]
		f2 = f2<<8 ^ c.reduce[byte(f2>>(polynomialDegree-8))] ^ uint64(p2[in]) ^ c.leave[p2[i]]
		f3 = f3<<8 ^ c.reduce[byte(f3>>(polynomialDegree-8))] ^ uint64(p3[in]) ^ c.leave[p3[i]]
		if f0&chunkMask == 0 {
			return i + 1 // nothing is before it
		}
		if f1&chunkMask == 0 && ends[1] == 0 {
			ends[1] = stretch + i + 1
		}
		if f2&chunkMask == 0 && ends[2] == 0 {
			ends[2] = 2*stretch + i + 1
		}
		if f3&chunkMask == 0 && ends[3] == 0 {
			ends[3] = 3*stretch + i + 1
		}
	}
	for _, end := range ends {
		if end != 0 {
			return end
		}
	}
	return 0
}

// fingerprint returns the fingerprint of one whole window.
func (c *cutter) fingerprint(w []byte) uint64 {
	var f uint64
	for _, b := range w {
		f = f<<8 ^ c.reduce[byte(f>>(polynomialDegree-8))] ^ uint64(b)
	}
	return f
}
