package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEnvironmentFile(t *testing.T) {
	got, err := parseEnvironmentFile([]byte("\xef\xbb\xbf# note\r\n\nA=1\r\nexport B = two words \nC=\"a \\\"q\\\"\\n\"\nD='$x \\n'\nE=\nF=a=b#c\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1", "B": "two words", "C": "a \"q\"\n", "D": `$x \n`, "E": "", "F": "a=b#c"}
	plain := map[string]string{}
	for name, v := range got {
		if !v.IsSecret() {
			t.Errorf("%s is not secret", name)
		}
		plain[name] = v.Reveal()
	}
	if diff := cmp.Diff(want, plain); diff != "" {
		t.Error(diff)
	}
}

func TestParseEnvironmentFileRefuses(t *testing.T) {
	for content, want := range map[string]string{
		"A=1\nno":     "2: want NAME=VALUE",
		"1A=1":        "1: want NAME=VALUE",
		"A=1\nA=2":    "2: A is there already",
		"A=\"hidden":  "1: A: the value begins with a quote",
		"A='hid'den'": "1: A: the value has a quote within quotes",
		"A=\"\\q\"":   "1: A: the value is not well quoted",
		"A=hid\x00en": "1: A: the value has a NUL",
		`A="hid\000"`: "1: A: the value has a NUL",
	} {
		_, err := parseEnvironmentFile([]byte(content))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		} else if strings.Contains(err.Error(), "hid") {
			t.Errorf("%q: the error tells the value: %v", content, err)
		}
	}
}

func FuzzEnvironmentFile(f *testing.F) {
	f.Add([]byte("A=1\nexport B=\"x\\n\"\n# c\nC='y'\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		variables, err := parseEnvironmentFile(content)
		for name, v := range variables {
			if err != nil || !envName.MatchString(name) || strings.ContainsRune(v.Reveal(), 0) {
				t.Errorf("%q gives %q, %v", content, name, err)
			}
		}
	})
}
