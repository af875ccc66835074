package topology

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// environmentFiles returns the values of env_file: one path or several.
func environmentFiles(v *value) []*value {
	if v.items != nil {
		return v.items
	}
	return []*value{v}
}

// environmentFile returns the variables of the file that v names. They are secret, for such files are where secrets are.
func (rs *resolver) environmentFile(v *value) map[string]Text {
	path, ok := v.scalar.(string)
	if !ok {
		return nil
	}
	rs.report.reads(path)
	content, mode, err := readRegular(path, maxSecretBytes)
	if err != nil {
		rs.report.failf(v.node, v.path, "%s: %w", v.path, err)
		return nil
	}
	variables, err := parseEnvironmentFile(content)
	if err != nil {
		rs.report.failf(v.node, v.path, "%s: %s:%w", v.path, path, err)
		return nil
	}
	rs.report.warnReadable(v.node, v.path, path, mode)
	return variables
}

// parseEnvironmentFile reads NAME=VALUE lines. Blank lines and those that begin with # are skipped, as is the word export before
// a name. A value in single quotes is what is between them; in double quotes, \n, \t, \" and \\ stand for what they do in a shell
// or in C. A value without quotes is taken as it is, without blanks at its ends. Nothing is interpolated. The error begins
// with the line's number and tells nothing of a value.
func parseEnvironmentFile(content []byte) (map[string]Text, error) {
	variables := map[string]Text{}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	for i, line := range strings.Split(string(content), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		name = strings.TrimSpace(strings.TrimPrefix(name, "export "))
		if !found || !envName.MatchString(name) {
			return nil, fmt.Errorf("%d: want NAME=VALUE", i+1)
		}
		value, err := unquoteVariable(strings.TrimSpace(value))
		if err == nil && strings.ContainsRune(value, 0) {
			err = faultf("the value has a NUL byte in it")
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %s: %w", i+1, name, err)
		}
		if _, twice := variables[name]; twice {
			return nil, fmt.Errorf("%d: %s is there already", i+1, name)
		}
		variables[name] = Secret(value)
	}
	return variables, nil
}

func unquoteVariable(value string) (string, error) {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, nil
	}
	quote := value[0]
	if len(value) < 2 || value[len(value)-1] != quote {
		return "", faultf("the value begins with a quote that does not end it")
	}
	inner := value[1 : len(value)-1]
	if quote == '\'' {
		if strings.Contains(inner, "'") {
			return "", faultf("the value has a quote within quotes")
		}
		return inner, nil
	}
	unquoted, err := strconv.Unquote(value)
	if err != nil {
		return "", faultf(`the value is not well quoted: write \" and \\ within double quotes`)
	}
	return unquoted, nil
}
