package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms says which of our rooms each room may import. ARCHITECTURE.md says why. A room that is part of another (bus/zmtp) is
// free of our domain: it imports at most other parts of the same. Tests keep to this too, but may import any room that is for
// tests: one whose name ends in test.
var rooms = map[string][]string{
	".":                      {"cli"},
	"cli":                    {"topology", "logfile", "schedule", "sockets", "handover", "engine", "supervisor", "proxy", "bus", "backup", "admin", "cli/shop"},
	"cli/shop":               {"bus"},
	"admin":                  {"topology", "sockets", "engine", "supervisor", "proxy", "bus", "backup"},
	"supervisor":             {"topology", "logfile", "schedule"},
	"proxy":                  {"topology", "logfile", "sockets", "handover", "eventloop", "proxy/http1"},
	"proxy/http1":            {},
	"eventloop":              {},
	"bus":                    {"topology", "sockets", "bus/zmtp"},
	"bus/zmtp":               {},
	"backup":                 {"topology", "schedule", "backup/restic", "backup/store"},
	"backup/restic":          {"backup/store"},
	"backup/store":           {},
	"backup/store/storetest": {"backup/store"},
	"engine":                 {"topology"},
	"engine/enginetest":      {"topology", "engine"},
	"topology":               {"schedule"},
	"logfile":                {},
	"sockets":                {},
	"handover":               {},
	"schedule":               {},
	"bench/proxy":            {},
}

// TestRules holds what the design asks of the source and a compiler does not.
func TestRules(t *testing.T) {
	set := token.NewFileSet()
	sources := readSources(t, set)
	for name, rule := range map[string]func(*testing.T, []source){
		"imports point down":               imports,
		"every package tells what it is":   packageComments,
		"names say something":              packageNames,
		"no init functions":                initFunctions,
		"no package-level state":           packageState,
		"tests do not sleep":               sleeps,
		"nothing is left to do":            leftovers,
		"testing stays out of the program": testingImports,
	} {
		t.Run(name, func(t *testing.T) { rule(t, sources) })
	}
}

// A source is one of our Go files.
type source struct {
	path string // relative to the root, with slashes
	room string // its directory
	test bool
	text string
	tree *ast.File
	set  *token.FileSet
}

// at returns where node stands, as editors jump to it.
func (s source) at(node ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.set.Position(node.Pos()).Line)
}

// imports returns the paths that s imports.
func (s source) imports() []string {
	var paths []string
	for _, spec := range s.tree.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// forTests reports whether only tests import a room.
func forTests(room string) bool { return strings.HasSuffix(room, "test") }

// readSources returns all Go files of this module.
func readSources(t *testing.T, set *token.FileSet) []source {
	t.Helper()
	var sources []source
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, notModule := os.Stat(filepath.Join(file, "go.mod"))
			hidden := strings.HasPrefix(entry.Name(), ".") || strings.HasPrefix(entry.Name(), "_")
			if file != "." && (hidden || notModule == nil || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(file) != ".go" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(set, file, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		slashed := filepath.ToSlash(file)
		sources = append(sources, source{
			path: slashed, room: path.Dir(slashed), test: strings.HasSuffix(file, "_test.go"),
			text: string(text), tree: tree, set: set,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func imports(t *testing.T, sources []source) {
	for _, s := range sources {
		allowed, known := rooms[s.room]
		if !known {
			t.Errorf("%s: the room %s is not in the table above: say what it may import, here and in ARCHITECTURE.md", s.path, s.room)
			continue
		}
		for _, imported := range s.imports() {
			room, ours := strings.CutPrefix(imported, "mainstay/")
			if !ours || slices.Contains(allowed, room) {
				continue
			}
			if s.test && (room == s.room || forTests(room)) {
				continue
			}
			t.Errorf("%s: %s must not import %s; it may import %v", s.path, s.room, room, allowed)
		}
	}
}

func packageComments(t *testing.T, sources []source) {
	comments := make(map[string][]string)
	for _, s := range sources {
		if s.test {
			continue
		}
		files := comments[s.room] // none is an entry too
		if s.tree.Doc != nil {
			files = append(files, s.path)
		}
		comments[s.room] = files
	}
	for room, files := range comments {
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments (%v), want one, in the file of its front door", room, len(files), files)
		}
	}
}

func packageNames(t *testing.T, sources []source) {
	empty := regexp.MustCompile(`^(base|common|helpers?|impl|lib|misc|shared|types|utils?)(_test)?$`)
	for _, s := range sources {
		if name := s.tree.Name.Name; empty.MatchString(name) {
			t.Errorf("%s: package %s could hold anything; name it after what it is about", s.path, name)
		}
	}
}

func initFunctions(t *testing.T, sources []source) {
	for _, s := range sources {
		for _, decl := range s.tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function runs before anyone asked; do it in main or a constructor", s.at(f))
			}
		}
	}
}

func sleeps(t *testing.T, sources []source) {
	for _, s := range sources {
		if !s.test || slices.Contains(s.imports(), "testing/synctest") {
			continue // in a synctest bubble time is made up, and sleeping is how it passes
		}
		ast.Inspect(s.tree, func(node ast.Node) bool {
			if call, ok := node.(*ast.CallExpr); ok && isSelector(call.Fun, "time", "Sleep") {
				t.Errorf("%s: time.Sleep waits too long or not long enough; wait for the thing itself, or use testing/synctest", s.at(call))
			}
			return true
		})
	}
}

func leftovers(t *testing.T, sources []source) {
	mark := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`) // split so that this line is none
	for _, s := range sources {
		for i, line := range strings.Split(s.text, "\n") {
			if found := mark.FindString(line); found != "" {
				t.Errorf("%s:%d: %s: do it, or open an issue", s.path, i+1, found)
			}
		}
	}
}

func testingImports(t *testing.T, sources []source) {
	for _, s := range sources {
		if s.test || forTests(s.room) {
			continue
		}
		for _, imported := range s.imports() {
			if imported == "testing" || strings.HasPrefix(imported, "testing/") {
				t.Errorf("%s: imports %s, which is for tests; move what needs it to a _test.go file", s.path, imported)
			}
		}
	}
}

// packageState finds variables of packages that change: those that are written to somewhere, those of a type that is there to
// change, and those that have no value yet. What is set once and then only read (errors, expressions, tables, embedded files) is none.
func packageState(t *testing.T, sources []source) {
	variables := make(map[string]map[string]bool) // by room
	for _, s := range sources {
		if s.test {
			continue
		}
		if variables[s.room] == nil {
			variables[s.room] = make(map[string]bool)
		}
		for _, decl := range s.tree.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				for _, name := range v.Names {
					variables[s.room][name.Name] = name.Name != "_"
				}
				if reason := changing(d, v); reason != "" {
					t.Errorf("%s: package-level variable %s %s; two of everything must run in one process", s.at(v), v.Names[0].Name, reason)
				}
			}
		}
	}
	for _, s := range sources {
		for _, decl := range s.tree.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			own := localNames(f)
			for _, name := range writtenNames(f) {
				if variables[s.room][name.Name] && !own[name.Name] {
					t.Errorf("%s: writes to the package-level variable %s; give it to who needs it instead", s.at(name), name.Name)
				}
			}
		}
	}
}

// changing returns why what v declares can only be there to change, or nothing.
func changing(d *ast.GenDecl, v *ast.ValueSpec) string {
	kind := v.Type
	if kind == nil && len(v.Values) == 1 {
		value := v.Values[0]
		if address, ok := value.(*ast.UnaryExpr); ok {
			value = address.X
		}
		switch literal := value.(type) {
		case *ast.CompositeLit:
			kind = literal.Type
		case *ast.CallExpr:
			if fun, ok := literal.Fun.(*ast.Ident); ok && fun.Name == "make" && len(literal.Args) == 1 {
				return "is made empty"
			}
		}
	}
	if selector, ok := kind.(*ast.SelectorExpr); ok {
		if from, ok := selector.X.(*ast.Ident); ok && (from.Name == "sync" || from.Name == "atomic") {
			return "is of a type that guards or changes state"
		}
	}
	embedded := d.Doc != nil && strings.Contains(d.Doc.List[len(d.Doc.List)-1].Text, "//go:embed")
	linked := kind != nil && isIdent(kind, "string") // by go build -ldflags -X
	if len(v.Values) == 0 && !embedded && !linked {
		return "has no value yet"
	}
	return ""
}

// localNames returns the names that f declares anywhere in it.
func localNames(f *ast.FuncDecl) map[string]bool {
	names := make(map[string]bool)
	ast.Inspect(f, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, left := range n.Lhs {
					if name, ok := left.(*ast.Ident); ok {
						names[name.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, left := range []ast.Expr{n.Key, n.Value} {
				if name, ok := left.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[name.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// writtenNames returns the names of what f assigns to, counts up, takes the address of, or deletes from, whole or in part.
func writtenNames(f *ast.FuncDecl) []*ast.Ident {
	var names []*ast.Ident
	write := func(target ast.Expr) {
		for {
			switch e := target.(type) {
			case *ast.Ident:
				names = append(names, e)
				return
			case *ast.SelectorExpr:
				target = e.X
			case *ast.IndexExpr:
				target = e.X
			case *ast.StarExpr:
				target = e.X
			case *ast.ParenExpr:
				target = e.X
			default:
				return
			}
		}
	}
	ast.Inspect(f, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				write(left)
			}
		case *ast.IncDecStmt:
			write(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				write(n.X)
			}
		case *ast.CallExpr:
			if isIdent(n.Fun, "delete") || isIdent(n.Fun, "clear") {
				write(n.Args[0])
			}
		}
		return true
	})
	return names
}

func isIdent(e ast.Expr, name string) bool {
	ident, ok := e.(*ast.Ident)
	return ok && ident.Name == name
}

func isSelector(e ast.Expr, from, name string) bool {
	selector, ok := e.(*ast.SelectorExpr)
	return ok && isIdent(selector.X, from) && selector.Sel.Name == name
}
