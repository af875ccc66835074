package http1

import "unsafe"

// A Span is where something stands in the bytes that were parsed.
type Span struct{ Start, End uint32 }

// Of returns what stands there in p.
func (s Span) Of(p []byte) []byte { return p[s.Start:s.End] }

// View returns what stands there in p as a string that shares p's memory: it is valid only until p changes.
func (s Span) View(p []byte) string {
	b := p[s.Start:s.End]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Len returns the length in bytes.
func (s Span) Len() int { return int(s.End - s.Start) }

func span(start, end int) Span { return Span{uint32(start), uint32(end)} }

// A Field is a field line: a token, and a value without white space around it and without control characters but HTAB.
type Field struct {
	Text  Span // the name as it was sent
	Value Span
	Name  Name // which one Text is
	// Nominated says that Connection names the field, so that it would be for the next hop only (RFC 9110, section 7.6.1). Those that
	// always are (Connection, TE, Upgrade and others) are not marked, and names that Connection may not name are marked too.
	Nominated bool
}

// Fields are the lines of a header section or a trailer section, in order.
type Fields struct {
	Lines []Field

	seen, twice nameSet

	at    int // where the line begins that is being read
	scan  int // what has been looked at
	colon int // where its name ends; zero: not yet known
}

// keptFields is the capacity that Lines keeps over a reset.
const keptFields = 256

func (f *Fields) reset(at int) {
	lines := f.Lines[:0]
	if cap(lines) > keptFields {
		lines = nil
	}
	*f = Fields{Lines: lines, at: at, scan: at}
}

// Has reports whether a known field is there.
func (f *Fields) Has(n Name) bool { return f.seen.has(n) }

// Find returns the index of the first line of a known field, or -1.
func (f *Fields) Find(n Name) int {
	if f.seen.has(n) {
		for i := range f.Lines {
			if f.Lines[i].Name == n {
				return i
			}
		}
	}
	return -1
}

// Value returns the value of the first line of a known field in p, the bytes that were parsed, or nil.
func (f *Fields) Value(p []byte, n Name) []byte {
	if i := f.Find(n); i >= 0 {
		return f.Lines[i].Value.Of(p)
	}
	return nil
}

// parse reads field lines up to and with the empty line (RFC 9112, section 5). It returns where that ends, or zero if more of p
// is needed.
func (f *Fields) parse(p []byte, limit int) (int, *Error) {
	for i := f.scan; ; {
		if f.colon == 0 {
			if i == f.at {
				if i == len(p) {
					f.scan = i
					return 0, nil
				}
				switch p[i] {
				case '\r':
					if i+1 == len(p) {
						f.scan = i
						return 0, nil
					}
					if p[i+1] != '\n' {
						return 0, errBareCR
					}
					return i + 2, nil
				case '\n':
					return 0, errBareLF
				case ' ', '\t':
					if len(f.Lines) == 0 {
						return 0, errLeading
					}
					return 0, errFold
				}
				if limit > 0 && len(f.Lines) >= limit {
					return 0, errTooMany
				}
			}
			for i < len(p) && lower[p[i]] != 0 {
				i++
			}
			if i == len(p) {
				f.scan = i
				return 0, nil
			}
			if p[i] != ':' || i == f.at {
				return 0, badName(p[i])
			}
			f.colon = i
			i++
		}
		i = scanValue(p, i)
		for i < len(p) && p[i] == '\t' {
			i = scanValue(p, i+1)
		}
		if i+1 >= len(p) && (i == len(p) || p[i] == '\r') {
			f.scan = i
			return 0, nil
		}
		if p[i] != '\r' || p[i+1] != '\n' {
			return 0, badValue(p[i])
		}
		start, end := trim(p, f.colon+1, i)
		name := lookup(p[f.at:f.colon])
		f.Lines = append(f.Lines, Field{Text: span(f.at, f.colon), Value: span(start, end), Name: name})
		set := nameSet(1) << name
		f.twice |= f.seen & set
		f.seen |= set
		i += 2
		f.at, f.colon = i, 0
	}
}

// badName says what is wrong with a field name that ends in c.
func badName(c byte) *Error {
	switch c {
	case ':':
		return errEmptyName
	case ' ', '\t':
		return errNameSpace
	case '\r':
		return errNoColon
	case '\n':
		return errBareLF
	}
	return errName
}

// badValue says what is wrong with a field value that ends in c.
func badValue(c byte) *Error {
	switch c {
	case '\r':
		return errBareCR
	case '\n':
		return errBareLF
	}
	return errValue
}
