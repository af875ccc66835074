package topology

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A Class says what a change does to what runs.
type Class string

const (
	ClassHot    Class = "hot"    // applied at once, nothing restarts
	ClassScale  Class = "scale"  // starts or drains exactly the difference
	ClassRoll   Class = "roll"   // new instances, one after the other, old ones drained
	ClassRebind Class = "rebind" // the new address is bound before the old one is let go
	ClassManual Class = "manual" // refused: needs a restart of Mainstay
)

// A Change is one difference between two topologies, for people and programs to read; no code branches on
// it except that a ClassManual change refuses a reload.
type Change struct {
	Path    string `json:"path"`          // services.web.command
	Action  string `json:"action"`        // add, change, remove
	Old     string `json:"old,omitempty"` // *** where secret
	New     string `json:"new,omitempty"`
	Class   Class  `json:"class"`
	Reason  string `json:"reason"`            // why it has this class: "the command is part of the process"
	Service string `json:"service,omitempty"` // whose it is
	// Instances are those that come, go or are replaced because of it: web/1, or 10.0.0.5:80 of a service that runs elsewhere. A roll
	// replaces those that stay; what a scale adds or takes away is only in that.
	Instances []string `json:"instances,omitempty"`
}

// Plan returns what is different in next, ordered by path. It has no effect. What is new or gone as a whole, such as
// a service, is one Change. A route is named by its host and path prefix: proxy.routes[shop.example.com/api].
func Plan(have, next *Topology) []Change {
	have, next = orEmpty(have), orEmpty(next)
	old, new := treeOf(have), treeOf(next)
	if have.StateDir == "" || next.StateDir == "" {
		// To and from nothing, there is no place that could not be left.
		for _, t := range []tree{old, new} {
			delete(t, "state_dir")
			delete(t, "admin")
		}
	}
	p := &planner{have: have.Services, next: next.Services}
	p.compare(root, "", meaning{}, old, new)
	p.compareOrder(have.Proxy.Routes, next.Proxy.Routes)
	slices.SortStableFunc(p.changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return p.changes
}

func orEmpty(t *Topology) *Topology {
	if t == nil {
		return Empty
	}
	return t
}

// A meaning is what a change of a key does, as the table says it there or above.
type meaning struct {
	class   Class
	reason  string
	service string
}

func (m meaning) of(k *key) meaning {
	if k == nil {
		return m
	}
	if k.class != "" {
		m.class = k.class
	}
	if k.reason != "" {
		m.reason = k.reason
	}
	return m
}

type planner struct {
	have, next map[string]Service
	changes    []Change
}

// compare adds what is different between old and new, which are what the key k has at path; nil is nothing.
func (p *planner) compare(k *key, path string, m meaning, old, new any) {
	m = m.of(k)
	oldTree, oldIsTree := old.(tree)
	newTree, newIsTree := new.(tree)
	switch {
	case oldIsTree && newIsTree:
		p.compareTrees(k, path, m, oldTree, newTree)
	case old == nil:
		p.add(Change{Path: path, Action: "add", New: shown(k, new)}, m)
	case new == nil:
		p.add(Change{Path: path, Action: "remove", Old: shown(k, old)}, m)
	case !same(old, new):
		p.add(Change{Path: path, Action: "change", Old: shown(k, old), New: shown(k, new)}, m)
	}
}

func (p *planner) compareTrees(k *key, path string, m meaning, old, new tree) {
	names := maps.Clone(old)
	maps.Copy(names, new)
	for name := range names {
		childPath, childMeaning := path+"."+name, m
		switch path {
		case "":
			childPath = name
		case "services":
			childMeaning.service = name
		case "proxy.routes":
			childPath = path + "[" + name + "]"
		}
		p.compare(below(k, name), childPath, childMeaning, old[name], new[name])
	}
}

func (p *planner) add(c Change, m meaning) {
	c.Class, c.Reason, c.Service = m.class, m.reason, m.service
	have, next := p.have[m.service].Probes.Told(), p.next[m.service].Probes.Told()
	if strings.HasPrefix(c.Path, "services."+m.service+".probes") && !reflect.DeepEqual(have, next) {
		c.Class, c.Reason = ClassRoll, "an instance is told when it starts whether and where it is to notify"
	}
	switch was, is := p.have[m.service].Schedule != nil, p.next[m.service].Schedule != nil; {
	case was && is && c.Class == ClassRoll:
		c.Class, c.Reason = ClassHot, "the job's next run is made with it"
	case was != is && c.Path == "services."+m.service+".schedule":
		c.Class, c.Reason = ClassScale, "a job has instances only while it runs"
	}
	if m.service != "" {
		c.Instances = touched(c.Class, p.have[m.service], p.next[m.service])
	}
	p.changes = append(p.changes, c)
}

// touched returns the instances that come, go or are replaced by a change of the given class to a service.
func touched(class Class, have, next Service) []string {
	old, new := instancesOf(have), instancesOf(next)
	inOld, inNew := setOf(old), setOf(new)
	var names []string
	switch class {
	case ClassRoll:
		for _, name := range old {
			if inNew[name] {
				names = append(names, name)
			}
		}
	case ClassScale:
		for _, name := range old {
			if !inNew[name] {
				names = append(names, name)
			}
		}
		for _, name := range new {
			if !inOld[name] {
				names = append(names, name)
			}
		}
	}
	return names
}

// instancesOf names the instances of a service. A job has none: its next run is as the file says by then.
func instancesOf(s Service) []string {
	if s.Stopped || s.Schedule != nil {
		return nil
	}
	var names []string
	for _, up := range s.External {
		names = append(names, up.Address)
	}
	if names != nil {
		return names
	}
	for n := range s.Replicas {
		names = append(names, fmt.Sprintf("%s/%d", s.Name, n+1))
	}
	return names
}

// compareOrder adds a change if routes that are in both have another order: the first match wins.
func (p *planner) compareOrder(have, next []Route) {
	old, new := routeLabels(have), routeLabels(next)
	inOld, inNew := setOf(old), setOf(new)
	old = slices.DeleteFunc(old, func(label string) bool { return !inNew[label] })
	new = slices.DeleteFunc(new, func(label string) bool { return !inOld[label] })
	for len(old) > 0 && old[0] == new[0] {
		old, new = old[1:], new[1:]
	}
	for len(old) > 0 && old[len(old)-1] == new[len(new)-1] {
		old, new = old[:len(old)-1], new[:len(new)-1]
	}
	if len(old) == 0 {
		return
	}
	proxy := below(root, "proxy")
	routes := below(proxy, "routes")
	m := meaning{}.of(proxy).of(routes).of(routes.typ.item)
	p.add(Change{Path: "proxy.routes", Action: "change", Old: firstFew(old), New: firstFew(new)}, m)
}

func setOf(words []string) map[string]bool {
	set := make(map[string]bool, len(words))
	for _, w := range words {
		set[w] = true
	}
	return set
}

// firstFew joins words in their order, at most ten of them.
func firstFew(words []string) string {
	if len(words) > 10 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:10], ", "), len(words)-10)
	}
	return strings.Join(words, ", ")
}
