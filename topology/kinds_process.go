package topology

import (
	"fmt"
	"math"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/schedule"
)

// The kinds of scalars that say how a process runs.

// argument is any scalar as it is written, for what is handed on: arguments, the environment. It is a Text.
var argument = &typ{
	name: "a string", yaml: "any", schema: map[string]any{"type": []string{"string", "number", "boolean"}},
	parse: func(s scalar) (any, error) {
		if strings.ContainsRune(s.String(), 0) {
			return nil, faultf("has a NUL byte in it")
		}
		if err := checkPlaceholders(s); err != nil {
			return nil, err
		}
		t := s.Text()
		for _, seg := range s.segments {
			if t.secret && !seg.inserted {
				if err := checkBesideSecret(seg.text); err != nil {
					return nil, err
				}
			}
		}
		return t, nil
	},
}

// placeholders are what each instance has its own value for.
var placeholders = []string{"address", "host", "port", "replica", "service"}

var placeholderForm = regexp.MustCompile(`\{([a-z_]+)\}`)

// checkPlaceholders finds those that are misspelled. Other braces are none of Mainstay's business.
func checkPlaceholders(s scalar) error {
	for _, seg := range s.segments {
		if seg.inserted {
			continue
		}
		for _, m := range placeholderForm.FindAllStringSubmatch(seg.text, -1) {
			if slices.Contains(placeholders, m[1]) {
				continue
			}
			// One slip in a short word is another word already: {cost} is not {host}.
			if near := nearest(m[1], placeholders); near != "" && (len(near) > 4 || distance(m[1], near) == 1) {
				return fault{fmt.Sprintf("unknown placeholder {%s}", m[1]), "{" + near + "}"}
			}
		}
	}
	return nil
}

// checkBesideSecret finds a placeholder in what the file says beside a secret in one value. It would not be replaced:
// a secret is handed on as it is, whatever is in it.
func checkBesideSecret(written string) error {
	for _, m := range placeholderForm.FindAllStringSubmatch(written, -1) {
		if slices.Contains(placeholders, m[1]) {
			return besideSecret(m[0])
		}
	}
	return nil
}

// besideSecret is a placeholder that stands beside a secret. The error tells nothing of the secret.
type besideSecret string

func (p besideSecret) Error() string {
	return fmt.Sprintf("%s and ${file:} cannot stand in one value, for what has a secret in it is handed on as it is; give the secret a value of its own", string(p))
}

var signal = &typ{
	name: "a signal", schema: map[string]any{"type": "string", "pattern": `^SIG[A-Z0-9]+$|\$\{`},
	parse: func(s scalar) (any, error) {
		n := unix.SignalNum(s.String())
		if n == 0 {
			f := fault{message: fmt.Sprintf("%q is not a signal like SIGTERM", s)}
			if upper := "SIG" + strings.TrimPrefix(strings.ToUpper(s.String()), "SIG"); unix.SignalNum(upper) != 0 {
				f.suggestion = upper
			}
			return nil, f
		}
		if n == syscall.SIGSTOP || n == syscall.SIGCONT || n == syscall.SIGCHLD {
			return nil, faultf("%s does not end a process", s)
		}
		return n, nil
	},
}

// cron is the five fields of crontab(5).
var cron = &typ{
	name: "a cron expression", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		if _, err := schedule.Parse(s.String(), time.UTC); err != nil {
			return nil, faultf("%q is not a cron expression: %s", s, err)
		}
		return strings.Join(strings.Fields(s.String()), " "), nil
	},
}

// timeZone is a name of the time zone database.
var timeZone = &typ{
	name: "a time zone", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		name := s.String()
		if _, err := time.LoadLocation(name); err != nil || name == "" || name == "Local" {
			return nil, faultf("%q is not a time zone like Europe/Berlin that this machine knows", name)
		}
		return name, nil
	},
}

var (
	userName = &typ{name: "a user", yaml: "any", schema: map[string]any{"type": []string{"string", "integer"}}, parse: func(s scalar) (any, error) {
		name := s.String()
		if _, err := user.Lookup(name); err == nil {
			return name, nil
		}
		if isID(name) {
			return name, nil
		}
		return nil, faultf("this machine has no user %q", name)
	}}
	groupName = &typ{name: "a group", yaml: "any", schema: map[string]any{"type": []string{"string", "integer"}}, parse: func(s scalar) (any, error) {
		name := s.String()
		if _, err := user.LookupGroup(name); err == nil {
			return name, nil
		}
		if isID(name) {
			return name, nil
		}
		return nil, faultf("this machine has no group %q", name)
	}}
)

// isID reports whether text is a number that a user or group can have; it needs no entry in a database.
func isID(text string) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	return err == nil && n < math.MaxUint32 && integerForm.MatchString(text)
}

// fileMode is permission bits in octal, as a string.
var fileMode = &typ{
	name: `permission bits like "0660"`, schema: map[string]any{"type": "string", "pattern": `^0?[0-7]{3}$|\$\{`},
	parse: func(s scalar) (any, error) {
		n, err := strconv.ParseUint(s.String(), 8, 32)
		if err != nil || n > 0o777 || len(s.String()) < 3 {
			return nil, faultf(`%q is not permission bits like "0660"`, s)
		}
		return uint32(n), nil
	},
}
