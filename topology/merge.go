package topology

// A merger lays one tree over another along the table of keys: mappings merge, everything else replaces.
type merger struct {
	// nullDeletes says that null in the upper tree takes the key of the lower one away.
	nullDeletes bool
}

// merge returns over laid over base; neither is changed. What t says to exclude each other (the kinds of a
// probe) is replaced as one.
func (m merger) merge(t *typ, base, over *node) *node {
	if base == nil || over == nil || base.shape != shapeMapping || over.shape != shapeMapping {
		if over == nil {
			return base
		}
		return over
	}
	replaced := map[string]bool{} // alternatives that over chooses anew
	for _, e := range over.entries {
		if k := t.child(e.key.text); k != nil && k.alternative != "" && e.value.shape != shapeNull {
			replaced[k.alternative] = true
		}
	}
	out := *over
	out.entries = nil
	upper := map[string]entry{}
	for _, o := range over.entries {
		upper[o.key.text] = o
	}
	merged := map[string]bool{}
	for _, b := range base.entries {
		k := t.child(b.key.text)
		o, ok := upper[b.key.text]
		switch {
		case !ok && k != nil && replaced[k.alternative]:
		case !ok:
			out.entries = append(out.entries, b)
		case o.value.shape == shapeNull && m.nullDeletes:
			merged[b.key.text] = true
		default:
			merged[b.key.text] = true
			out.entries = append(out.entries, entry{o.key, m.merge(k.typOrNil(), b.value, o.value)})
		}
	}
	for _, o := range over.entries {
		if !merged[o.key.text] {
			out.entries = append(out.entries, o)
		}
	}
	return &out
}
