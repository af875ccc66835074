package proxy

import (
	"errors"
	"strconv"
	"strings"
)

// maxHops is the largest number that is sent on in Max-Forwards.
const maxHops = 1<<31 - 1

// countHop reads the Max-Forwards lines of an OPTIONS request, which count down who may send it on (RFC 9110, section 7.6.2). It returns what the field is to say
// from here on, "" if there is none, or that the request is to be answered here.
func countHop(lines []string) (next string, last bool, err error) {
	if len(lines) == 0 {
		return "", false, nil
	}
	number := strings.TrimLeft(lines[0], "0")
	if len(lines) > 1 || lines[0] == "" || strings.Trim(number, "0123456789") != "" {
		return "", false, errors.New("Max-Forwards is not one number")
	}
	if number == "" {
		return "", true, nil
	}
	n, _ := strconv.ParseUint(number, 10, 64) // of too many digits it makes the largest there is
	return strconv.FormatUint(min(n-1, maxHops), 10), false, nil
}
