// Package ext stands for the module of the same path, which Traefik's own go.mod replaces by a directory that the module proxy does
// not hand out: the place where other editions add fields to the dynamic configuration. This one adds none.
package ext

// HTTP has nothing to add.
type HTTP struct{}

// DeepCopyInto copies in into out.
func (in *HTTP) DeepCopyInto(out *HTTP) { *out = *in }

// Router has nothing to add.
type Router struct{}

// DeepCopyInto copies in into out.
func (in *Router) DeepCopyInto(out *Router) { *out = *in }
