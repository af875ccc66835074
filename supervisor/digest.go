package supervisor

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"mainstay/topology"
)

// A digest tells whether a specification has the recipe that a process was made from, without telling what that is: a
// recipe has secrets in it, which are never written to a disk.
type digest struct {
	Salt string `json:"salt"` // hexadecimal
	Sum  string `json:"sum"`  // SHA-256 of the salt and the recipe, hexadecimal
}

// digestOf returns a digest of spec's recipe, with a salt of its own.
func digestOf(spec topology.Service) digest {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	d := digest{Salt: hex.EncodeToString(salt)}
	d.Sum = d.sum(spec)
	return d
}

// of reports whether d is a digest of spec's recipe.
func (d digest) of(spec topology.Service) bool { return d.Sum != "" && d.Sum == d.sum(spec) }

func (d digest) sum(spec topology.Service) string {
	h := sha256.New()
	io.WriteString(h, d.Salt)
	digestValue(h, reflect.ValueOf(recipe(spec)))
	return hex.EncodeToString(h.Sum(nil))
}

// digestValue writes v to h so that what differs is written differently. A field that has its zero value is left out: a later
// Mainstay, which knows of more fields, still finds the same recipe in the same specification.
func digestValue(h hash.Hash, v reflect.Value) {
	word := func(s string) { io.WriteString(h, strconv.Itoa(len(s))+":"+s) }
	if text, ok := v.Interface().(topology.Text); ok {
		word(text.Reveal())
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() {
				word(f.Name)
				digestValue(h, v.Field(i))
			}
		}
		word("")
	case reflect.Pointer:
		digestValue(h, v.Elem()) // one that is nil is left out, as the zero value
	case reflect.Slice, reflect.Array:
		word(strconv.Itoa(v.Len()))
		for i := range v.Len() {
			digestValue(h, v.Index(i))
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		word(strconv.Itoa(len(keys)))
		for _, k := range keys {
			word(k.String())
			digestValue(h, v.MapIndex(k))
		}
	case reflect.String:
		word(v.String())
	case reflect.Bool:
		word(strconv.FormatBool(v.Bool()))
	case reflect.Float64:
		word(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	default: // every other kind in a Service is an integer
		word(strconv.FormatInt(v.Int(), 10))
	}
}
