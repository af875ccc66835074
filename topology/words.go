package topology

import (
	"fmt"
	"slices"
	"strings"
)

// splitWords splits a command as a POSIX shell splits words, and does nothing else that a shell does: quotes and
// backslashes group; what was interpolated is part of the word it stands in, whatever is in it.
func splitWords(s scalar) ([]Text, error) {
	var words []Text
	var word strings.Builder
	var written strings.Builder // what of the word the file says itself
	put := func(c byte) {
		word.WriteByte(c)
		written.WriteByte(c)
	}
	var quote byte // ' or " while inside
	open, secret, quoted := false, false, false
	end := func() error {
		if !open {
			return nil
		}
		if !quoted && slices.Contains(shellWords, word.String()) {
			return fault{message: fmt.Sprintf(`a command runs without a shell, which %q needs; write {shell: "…"}, or quote it`, word.String())}
		}
		if secret {
			if err := checkBesideSecret(written.String()); err != nil {
				return err
			}
		}
		words = append(words, Text{word.String(), secret})
		word.Reset()
		written.Reset()
		open, secret, quoted = false, false, false
		return nil
	}
	for _, seg := range s.segments {
		if seg.inserted {
			word.WriteString(seg.text)
			written.WriteByte(' ') // what stands around it is not one placeholder
			open, quoted, secret = true, true, secret || seg.secret
			continue
		}
		for i := 0; i < len(seg.text); i++ {
			c := seg.text[i]
			switch {
			case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '\\':
				put(c)
			case quote != 0 && c == quote:
				quote = 0
			case c == '\\':
				next := i+1 < len(seg.text)
				if !next {
					return nil, fault{message: "a backslash ends the command"}
				}
				if quote == '"' && !strings.ContainsRune("\"\\$`", rune(seg.text[i+1])) {
					put(c)
					continue
				}
				i++
				put(seg.text[i])
				open, quoted = true, true
			case c == '\'' || c == '"':
				quote = c
				open, quoted = true, true
			case c == ' ' || c == '\t' || c == '\n' || c == '\r':
				if err := end(); err != nil {
					return nil, err
				}
			default:
				put(c)
				open = true
			}
		}
	}
	if quote != 0 {
		return nil, fault{message: fmt.Sprintf("a quote %c is not closed", quote)}
	}
	if err := end(); err != nil {
		return nil, err
	}
	return words, nil
}

// shellWords are the words that mean something to a shell and nothing to a program.
var shellWords = []string{"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>"}
