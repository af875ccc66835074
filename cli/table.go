package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A table prints rows in aligned columns, with two spaces between them.
type table struct {
	head  []string
	rows  [][]string
	notes []string                 // lines that are told under the table
	mark  func(cell string) string // colours a cell; nil: no colour
}

func newTable(head ...string) *table { return &table{head: head} }

// row adds a row, with one cell for each of the head.
func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = plain(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// print writes the table to w, and its notes under it.
func (t *table) print(w io.Writer) {
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	t.line(w, widths, t.head)
	for _, row := range t.rows {
		t.line(w, widths, row)
	}
	for _, note := range t.notes {
		fmt.Fprintln(w, plain(note))
	}
}

func (t *table) line(w io.Writer, widths []int, cells []string) {
	var line strings.Builder
	for i, cell := range cells {
		if i > 0 {
			line.WriteString("  ")
		}
		text := cell
		if t.mark != nil {
			text = t.mark(cell)
		}
		line.WriteString(text)
		line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
	}
	fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// colours reports whether w is to be written to in colour: see no-color.org.
func colours(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

// colourState gives the words for states their colours.
func colourState(cell string) string {
	colour := ""
	switch cell {
	case "ready", "completed", "scheduled", "succeeded", "idle", "admitted":
		colour = "32" // green
	case "pending", "starting", "updating", "removed", "draining", "stopping", "waiting", "running", "degraded":
		colour = "33" // yellow
	case "failed", "timed-out", "ejected":
		colour = "31" // red
	default:
		return cell
	}
	return "\x1b[" + colour + "m" + cell + "\x1b[0m"
}

// plain returns a text of somebody else's, of which a service may have had its part, without what could move a terminal's cursor or
// do worse. Lines stay lines.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// dash stands for what there is nothing to say about.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// duration shows d in its two largest units: 3d4h, 5m12s, 40s.
func duration(d time.Duration) string {
	d = d.Round(time.Second)
	day := 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%ds", max(d, 0)/time.Second)
	}
}

// age shows how long ago t was.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration(time.Since(t))
}

// size shows a number of bytes in binary units.
func size(n uint64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1<<10 && unit < 4 {
		value, unit = value/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[unit])
}

// count shows a number with the noun for what is counted.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
