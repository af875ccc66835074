package topology

import (
	"encoding/json"
	"maps"
	"strings"
)

// Schema returns the JSON Schema (draft-07) of the file, made from the table of keys. Editors read it: it knows
// what is not supported yet, too, and says so; Parse is stricter.
func Schema() []byte {
	s := schemaOf(root)
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	s["title"] = "Mainstay topology"
	s["patternProperties"] = map[string]any{"^x-": true}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // the table holds nothing that JSON does not
	}
	return append(out, '\n')
}

// schemaOf returns the schema of what k takes.
func schemaOf(k *key) map[string]any {
	s := formsOf(k)
	if doc := docOf(k); doc != "" {
		s["description"] = doc
	}
	if v, ok := k.typ.schemaValue(k.def); ok {
		s["default"] = v
	}
	return s
}

func docOf(k *key) string {
	if k.unsupported {
		return "Not supported yet. " + k.doc
	}
	return k.doc
}

// formsOf returns the schema of each form that k takes: as a scalar, a list, a mapping.
func formsOf(k *key) map[string]any {
	t := k.typ
	var forms []any
	if t.parse != nil {
		forms = append(forms, scalarForms(t)...)
	}
	if t.item != nil {
		forms = append(forms, map[string]any{"type": "array", "items": schemaOf(t.item)})
	}
	if t.keys != nil {
		forms = append(forms, mappingForm(t))
	} else if t.each != nil {
		forms = append(forms, map[string]any{"type": "object", "additionalProperties": schemaOf(t.each)})
	}
	if len(forms) == 1 {
		return maps.Clone(forms[0].(map[string]any))
	}
	return map[string]any{"anyOf": forms}
}

// scalarForms are the scalar and, where that is no string, the interpolated string that may stand for it.
func scalarForms(t *typ) []any {
	forms := []any{t.schema}
	if pattern, ok := t.schema["pattern"].(string); ok && strings.HasSuffix(pattern, interpolated) {
		return forms
	}
	if t.schema["type"] == "string" {
		return forms
	}
	return append(forms, map[string]any{"type": "string", "pattern": interpolated})
}

// interpolated is the pattern of a string that something is interpolated into.
const interpolated = `\$\{`

func mappingForm(t *typ) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, child := range t.keys {
		properties[child.name] = schemaOf(child)
		if child.required && child.alternative == "" { // a command may stand in defaults; only Parse sees both
			required = append(required, child.name)
		}
	}
	form := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		form["required"] = required
	}
	return form
}

// schemaValue is a default as JSON has it.
func (t *typ) schemaValue(def string) (any, bool) {
	if def == "" {
		return nil, false
	}
	switch t.yaml {
	case "!!int", "!!float":
		return json.Number(def), true
	case "!!bool":
		return def == "true", true
	}
	return def, true
}
