package topology

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of scalars that are used everywhere: what they are called, how they are read and how an editor checks them.

func faultf(format string, args ...any) error { return fault{message: fmt.Sprintf(format, args...)} }

// plural is what several of t are called.
func (t *typ) plural() string {
	words := strings.TrimPrefix(strings.TrimPrefix(t.name, "a "), "an ")
	first, rest, more := strings.Cut(words, " ")
	if more {
		return first + "s " + rest
	}
	return first + "s"
}

func parseEnum(text string, values []string) (any, error) {
	if slices.Contains(values, text) {
		return text, nil
	}
	return nil, fault{fmt.Sprintf("unknown value %q; one of %s", text, strings.Join(values, ", ")), nearest(text, values)}
}

// text is a string that is not empty and has no control characters.
var text = &typ{name: "a string", parse: parseText, schema: map[string]any{"type": "string"}}

func parseText(s scalar) (any, error) {
	t := s.String()
	if t == "" {
		return nil, faultf("is empty")
	}
	if i := strings.IndexFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return nil, faultf("has the control character %q in it", t[i])
	}
	return t, nil
}

// integer is a whole number from lowest to highest.
func integer(lowest, highest int64) *typ {
	schema := map[string]any{"type": "integer", "minimum": lowest}
	if highest < math.MaxInt32 {
		schema["maximum"] = highest
	}
	return &typ{name: "a whole number", yaml: "!!int", schema: schema, parse: func(s scalar) (any, error) {
		n, err := parseInteger(s.String())
		if err != nil {
			return nil, err
		}
		if n < lowest || n > highest {
			return nil, faultf("%d is not from %d to %d", n, lowest, highest)
		}
		return int(n), nil
	}}
}

var integerForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func parseInteger(text string) (int64, error) {
	if !integerForm.MatchString(text) {
		return 0, faultf("%q is not a whole number", text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, faultf("%s is out of range", text)
	}
	return n, nil
}

var number = &typ{
	name: "a number", yaml: "!!float", schema: map[string]any{"type": "number"},
	parse: func(s scalar) (any, error) {
		f, err := strconv.ParseFloat(s.String(), 64)
		if err != nil {
			return nil, faultf("%q is not a number", s)
		}
		return f, nil
	},
}

var boolean = &typ{
	name: "true or false", yaml: "!!bool", schema: map[string]any{"type": "boolean"},
	parse: func(s scalar) (any, error) {
		switch s.String() {
		case "true", "True", "TRUE":
			return true, nil
		case "false", "False", "FALSE":
			return false, nil
		}
		return nil, faultf("%q is neither true nor false", s)
	},
}

// duration is a time.Duration of at least lowest.
func duration(lowest time.Duration) *typ {
	return &typ{
		name:   "a duration",
		yaml:   "any",
		schema: map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d))+$|\$\{`},
		parse: func(s scalar) (any, error) {
			d, err := parseDuration(s.String())
			if err != nil {
				return nil, err
			}
			if d < lowest {
				return nil, faultf("%s is too short; at least %s", s, shortDuration(lowest))
			}
			return d, nil
		},
	}
}

var (
	bareNumber  = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	wholeDays   = regexp.MustCompile(`^([0-9]{1,5})d`)
	sizeForm    = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]+)$`)
	percentForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?%$`)
)

func parseDuration(text string) (time.Duration, error) {
	if bareNumber.MatchString(text) {
		return 0, fault{fmt.Sprintf("%s has no unit", text), text + "s"}
	}
	rest, days := text, 0
	if m := wholeDays.FindStringSubmatch(text); m != nil {
		days, _ = strconv.Atoi(m[1])
		rest = text[len(m[0]):]
	}
	var d time.Duration
	if rest != "" || days == 0 && !wholeDays.MatchString(text) {
		var err error
		if d, err = time.ParseDuration(rest); err != nil || d < 0 || rest[0] == '+' {
			return 0, faultf("%q is not a duration like 500ms, 1m30s or 30d", text)
		}
	}
	return time.Duration(days)*24*time.Hour + d, nil
}

// shortDuration prints d without the zero units that Duration.String appends: 1m, not 1m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size is a number of bytes.
var size = &typ{
	name: "a size", yaml: "any",
	schema: map[string]any{"type": "string", "pattern": `^[0-9]+ ?(B|[kKMGT]B|[KMGT]iB)$|\$\{`},
	parse:  func(s scalar) (any, error) { return parseSize(s.String()) },
}

// sizeIn is a number of bytes from lowest to highest.
func sizeIn(lowest, highest int64) *typ {
	return &typ{name: size.name, yaml: size.yaml, schema: size.schema, parse: func(s scalar) (any, error) {
		n, err := parseSize(s.String())
		if err == nil && (n.(int64) < lowest || n.(int64) > highest) {
			return nil, faultf("%s is not from %s to %s", s, shortSize(lowest), shortSize(highest))
		}
		return n, err
	}}
}

var sizeUnits = map[string]int64{
	"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

func parseSize(text string) (any, error) {
	if bareNumber.MatchString(text) {
		return nil, fault{fmt.Sprintf("%s has no unit", text), text + "MiB"}
	}
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		return nil, faultf("%q is not a size like 64MiB", text)
	}
	unit, known := sizeUnits[m[2]]
	if !known {
		f := fault{message: fmt.Sprintf("%q is not a size like 64MiB: the units are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB", text)}
		if i := strings.Index("kmgt", strings.ToLower(m[2][:1])); i >= 0 {
			f.suggestion = m[1] + "KMGT"[i:i+1] + "iB"
		}
		return nil, f
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return nil, faultf("%s is out of range", text)
	}
	if n == 0 {
		return nil, faultf("%s is nothing; at least 1B", text)
	}
	return n * unit, nil
}

// shortSize prints n with the largest binary unit that divides it.
func shortSize(n int64) string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n != 0 && n%sizeUnits[unit] == 0 {
			return strconv.FormatInt(n/sizeUnits[unit], 10) + unit
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

var percentage = &typ{
	name: "a percentage", schema: map[string]any{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$|\$\{`},
	parse: func(s scalar) (any, error) {
		if !percentForm.MatchString(s.String()) {
			return nil, faultf("%q is not a percentage like 5%%", s)
		}
		return strconv.ParseFloat(strings.TrimSuffix(s.String(), "%"), 64)
	},
}

// canaryWeight is a share that leaves something for others.
var canaryWeight = &typ{
	name: percentage.name, yaml: "any", schema: percentage.schema,
	parse: func(s scalar) (any, error) {
		if bareNumber.MatchString(s.String()) {
			return nil, fault{fmt.Sprintf("%s has no unit", s), s.String() + "%"}
		}
		v, err := percentage.parse(s)
		if err == nil && (v.(float64) <= 0 || v.(float64) > 90) {
			return nil, faultf("%s is not more than 0%% and at most 90%%", s)
		}
		return v, err
	},
}

// numberIn is a number from lowest to highest.
func numberIn(lowest, highest float64) *typ {
	return &typ{name: number.name, yaml: number.yaml, schema: map[string]any{"type": "number", "minimum": lowest, "maximum": highest}, parse: func(s scalar) (any, error) {
		v, err := number.parse(s)
		if err != nil {
			return nil, err
		}
		if f := v.(float64); !(f >= lowest && f <= highest) { // nor is NaN
			return nil, faultf("%s is not from %g to %g", s, lowest, highest)
		}
		return v, nil
	}}
}

var (
	ratio  = numberIn(0, 1)
	factor = numberIn(1, 1000)
	cores  = numberIn(0.01, 4096)
)

// atLeast is a size of lowest bytes or more.
func atLeast(lowest int64) *typ {
	return &typ{name: size.name, yaml: size.yaml, schema: size.schema, parse: func(s scalar) (any, error) {
		v, err := size.parse(s)
		if err == nil && v.(int64) < lowest {
			return nil, faultf("%s is too small; at least %s", s, shortSize(lowest))
		}
		return v, err
	}}
}

const maxBody = 64 << 10

// body is the content of a response.
var body = &typ{name: "a string", yaml: "any", schema: map[string]any{"type": []string{"string", "number", "boolean"}}, parse: func(s scalar) (any, error) {
	if len(s.String()) > maxBody {
		return nil, faultf("is longer than %d bytes", maxBody)
	}
	return s.String(), nil
}}

// file is a path, made absolute.
var file = &typ{
	name: "a path", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		if _, err := parseText(s); err != nil {
			return nil, err
		}
		return absolute(s.String(), s.directory), nil
	},
}

// The names that a user gives: short, and fit for paths, labels and host names.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$`)

func checkName(name string) error {
	if len(name) > 63 || !nameForm.MatchString(name) {
		return faultf("%q is not a name: a to z, 0 to 9, - and _ within, at most 63", name)
	}
	return nil
}

func checkVariable(name string) error {
	if !envName.MatchString(name) {
		return faultf("%q is not the name of an environment variable", name)
	}
	return nil
}
