package topology

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
)

// referenceIntro is what the reference page says before the keys.
//
//go:embed reference.md
var referenceIntro string

// Reference returns the reference page of the file in Markdown, made from the table of keys.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceIntro)
	writeReference(&b, root, "")
	return b.Bytes()
}

// writeReference writes a section for the mapping that k takes, if it takes one, and for those below.
func writeReference(b *bytes.Buffer, k *key, path string) {
	t := k.typ
	if t.item != nil {
		writeReference(b, t.item, path+"[]")
	}
	if t.keys == nil {
		if t.each != nil {
			writeReference(b, t.each, join(path, t.each.name))
		}
		return
	}
	title := "The whole file"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n", title, docOf(k))
	if path == "defaults" {
		return
	}
	b.WriteString("\n| key | takes | default | means | change |\n| --- | --- | --- | --- | --- |\n")
	for _, child := range t.keys {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s For example `%s`. | %s |\n", child.name, cell(child.typ.name), defaultOf(child),
			cell(docOf(child)), cell(child.example), changeOf(child))
	}
	for _, child := range t.keys {
		writeReference(b, child, join(path, child.name))
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// cell is text that stands in a Markdown table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func defaultOf(k *key) string {
	switch {
	case k.required && k.alternative == "":
		return "**required**"
	case k.defDoc != "":
		return k.defDoc
	case k.def != "":
		return "`" + k.def + "`"
	}
	return ""
}

func changeOf(k *key) string {
	if k.class == "" {
		return ""
	}
	return fmt.Sprintf("%s: %s", k.class, k.reason)
}
