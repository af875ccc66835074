package restic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIrreducible(t *testing.T) {
	for p, want := range map[polynomial]bool{
		0x3ef6f763c29ef1: true,  // of a repository made by restic
		0x3da3358b4dc173: true,  // in the tests of restic's chunker
		0x3ef6f763c29ef0: false, // 0 is a root
		0x3ef6f763c29ef3: false, // 1 is a root
		1<<53 | 7:        false,
		0x1ef6f763c29ef1: false, // of degree 52
		0:                false,
	} {
		if got := p.irreducible(); got != want {
			t.Errorf("%x: %v", uint64(p), got)
		}
	}
	// (x³+x+1)·(x⁵⁰+x⁴⁹+x⁴+x²+1), which has no root.
	var product polynomial
	for i := range 32 {
		if 0b1011&(1<<i) != 0 {
			product ^= 0x6000000000015 << i
		}
	}
	if product.irreducible() {
		t.Errorf("%x is a product", uint64(product))
	}
	for range 10 {
		if p := randomPolynomial(); p.degree() != polynomialDegree || !p.irreducible() {
			t.Errorf("%x is not irreducible", uint64(p))
		}
	}
}

// slowEnds is Rabin's fingerprint by the book: the remainder of the window, computed anew for each byte.
func slowEnds(p polynomial, data []byte) []int {
	var ends []int
	start := 0
	for i := range data {
		size := i + 1 - start
		if size < minChunk {
			continue
		}
		var f polynomial
		for _, b := range data[i+1-window : i+1] {
			f = p.shift(f, 8) ^ polynomial(b)
		}
		if f&chunkMask == 0 || size == maxChunk {
			ends = append(ends, i+1)
			start = i + 1
		}
	}
	if start < len(data) {
		ends = append(ends, len(data))
	}
	return ends
}

// A dribble returns few bytes at a time.
type dribble struct{ *bytes.Reader }

func (d dribble) Read(p []byte) (int, error) {
	return d.Reader.Read(p[:min(len(p), 1+rand.IntN(100_000))])
}

func TestChunks(t *testing.T) {
	p := polynomial(0x3da3358b4dc173)
	random := rand.NewChaCha8([32]byte{7})
	for _, size := range []int{0, 1, minChunk - 1, minChunk, minChunk + 1, 3_000_000} {
		data := make([]byte, size)
		random.Read(data)
		reader := &chunkReader{cutter: newCutter(p), buffers: new(buffers)}
		reader.reset(dribble{bytes.NewReader(data)})
		var got []int
		end := 0
		for {
			chunk, err := reader.next(int64(size - end))
			if err != nil {
				break
			}
			if !bytes.Equal(chunk, data[end:end+len(chunk)]) {
				t.Errorf("size %d: chunk at %d is not what is there", size, end)
			}
			end += len(chunk)
			got = append(got, end)
			reader.buffers.give(chunk)
		}
		if diff := cmp.Diff(slowEnds(p, data), got); diff != "" {
			t.Errorf("size %d: ends (-slow +got):\n%s", size, diff)
		}
	}
}

// The first end is found, wherever the search begins and ends.
func TestFind(t *testing.T) {
	data := make([]byte, maxChunk)
	rand.NewChaCha8([32]byte{7}).Read(data)
	c := newCutter(0x3da3358b4dc173)
	first := c.find(data, minChunk, len(data))
	if first == 0 {
		t.Fatal("no end in 8 MiB")
	}
	for _, before := range []int{1, 2, 63, 64, 65, stretch, 4 * stretch, 4*stretch + 1, 300_000} {
		for _, after := range []int{-1, 0, 1, 64, 4 * stretch, 300_000} {
			want := first
			if after < 0 {
				want = 0
			}
			if got := c.find(data, first-before, first+after); got != want {
				t.Errorf("from %d before the end to %d after: %d, want %d", before, after, got, want)
			}
		}
	}
}

func BenchmarkCut(b *testing.B) {
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	c := newCutter(0x3da3358b4dc173)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for from := minChunk; from < len(data); {
			end := c.find(data, from, len(data))
			if end == 0 {
				break
			}
			from = end
		}
	}
}

func TestSeal(t *testing.T) {
	k := testKey()
	plain := []byte("something to keep")
	sealed := k.seal([]byte("before"), plain)[len("before"):]
	if len(sealed) != len(plain)+sealOverhead || bytes.Contains(sealed, plain) {
		t.Errorf("sealed: %q", sealed)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := k.open(damaged); err == nil {
			t.Errorf("opened though byte %d is another", i)
		}
	}
	for n := range len(sealed) {
		if _, err := k.open(bytes.Clone(sealed[:n])); err == nil {
			t.Errorf("opened though cut to %d bytes", n)
		}
	}
	if got, err := k.open(sealed); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("opened: %q, %v", got, err)
	}
}

func TestBlobOfAnotherName(t *testing.T) {
	r := &Repository{key: testKey()}
	plain := []byte("content")
	if _, err := r.openBlob(sha256.Sum256(plain), r.key.seal(nil, plain), 0); err != nil {
		t.Error(err)
	}
	if _, err := r.openBlob(ID{1}, r.key.seal(nil, plain), 0); err == nil || !strings.Contains(err.Error(), "does not match its hash") {
		t.Errorf("opened under another name: %v", err)
	}
}

func testKey() *sealKey {
	k, err := newSealKey(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 16))
	if err != nil {
		panic(err)
	}
	return k
}

// A referenceNode is restic's, in the order of its fields, for encoding/json.
type referenceNode struct {
	Name          string      `json:"name"`
	Type          NodeType    `json:"type"`
	Mode          os.FileMode `json:"mode,omitempty"`
	ModTime       time.Time   `json:"mtime,omitempty"`
	AccessTime    time.Time   `json:"atime,omitempty"`
	ChangeTime    time.Time   `json:"ctime,omitempty"`
	UID           uint32      `json:"uid"`
	GID           uint32      `json:"gid"`
	User          string      `json:"user,omitempty"`
	Group         string      `json:"group,omitempty"`
	Inode         uint64      `json:"inode,omitempty"`
	DeviceID      uint64      `json:"device_id,omitempty"`
	Size          uint64      `json:"size,omitempty"`
	Links         uint64      `json:"links,omitempty"`
	LinkTarget    string      `json:"linktarget,omitempty"`
	LinkTargetRaw []byte      `json:"linktarget_raw,omitempty"`
	Xattrs        []Xattr     `json:"extended_attributes,omitempty"`
	Device        uint64      `json:"device,omitempty"`
	Content       []ID        `json:"content"`
	Subtree       *ID         `json:"subtree,omitempty"`
}

func TestTreeIsWhatEncodingJSONWouldWrite(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	at := time.Date(2026, 1, 2, 3, 4, 5, 60, zone)
	tree := ID{1, 2, 3}
	nodes := []*Node{
		{Name: "file <&>\"\\\xff\u2028é", Type: File, Mode: 0o644, ModTime: at, AccessTime: at.UTC(), ChangeTime: at.Add(time.Nanosecond), UID: 1, GID: 2, User: "a\nb", Group: "ü", Inode: 3, DeviceID: 4, Size: 5, Links: 6, Content: []ID{{1}, {2}}},
		{Name: "empty", Type: File, ModTime: at, Content: []ID{}},
		{Name: "dir", Type: Dir, Mode: os.ModeDir | os.ModeSticky | 0o777, ModTime: time.Unix(-5, 7).UTC(), Subtree: &tree, Xattrs: []Xattr{{"user.<x>", []byte{0, 255}}, {"user.empty", []byte{}}}},
		{Name: "link", Type: Symlink, LinkTarget: "to \xff"},
		{Name: "dev", Type: CharDevice, Device: 259, Links: 1},
	}
	var want struct {
		Nodes []referenceNode `json:"nodes"`
	}
	for _, n := range nodes {
		quoted := strconv.Quote(n.Name)
		r := referenceNode{Name: quoted[1 : len(quoted)-1], Type: n.Type, Mode: n.Mode, ModTime: n.ModTime, AccessTime: n.AccessTime, ChangeTime: n.ChangeTime, UID: n.UID, GID: n.GID, User: n.User, Group: n.Group, Inode: n.Inode, DeviceID: n.DeviceID, Size: n.Size, Links: n.Links, LinkTarget: n.LinkTarget, Xattrs: n.Xattrs, Device: n.Device, Content: n.Content, Subtree: n.Subtree}
		if n.Name == "link" {
			r.LinkTargetRaw = []byte(n.LinkTarget)
		}
		want.Nodes = append(want.Nodes, r)
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := appendTree(nil, nodes)
	if diff := cmp.Diff(string(text)+"\n", string(got)); diff != "" {
		t.Errorf("tree (-encoding/json +ours):\n%s", diff)
	}
	back, err := parseTree(got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nodes, back, cmp.Comparer(func(a, b []ID) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestHostileTrees(t *testing.T) {
	for _, tree := range []string{
		`{"nodes":[{"name":"../evil","type":"file"}]}`,
		`{"nodes":[{"name":"..","type":"file"}]}`,
		`{"nodes":[{"name":".","type":"file"}]}`,
		`{"nodes":[{"name":"","type":"file"}]}`,
		`{"nodes":[{"name":"a/b","type":"file"}]}`,
		`{"nodes":[{"name":"a\\x2fb","type":"file"}]}`,
		`{"nodes":[{"name":"a\\x00b","type":"file"}]}`,
		`{"nodes":[{"name":"a","type":"symlink","linktarget":"/etc"},{"name":"a","type":"file"}]}`,
		`{"nodes":[{"name":"a","type":"dir"}]}`,
		`{"nodes":[{"name":"a","type":"symlink"}]}`,
		`{"nodes":[{"name":"a","type":"symlink","linktarget":"x","subtree":"0000000000000000000000000000000000000000000000000000000000000000"}]}`,
		`{"nodes":[{"name":"a","type":"fifo","content":["0000000000000000000000000000000000000000000000000000000000000000"]}]}`,
		`{"nodes":[{"name":"a\\q","type":"file"}]}`,
		`{"nodes":[{"name":"a","type":"file","content":["00"]}]}`,
		`{"nodes":`, `[]`, ``,
	} {
		if nodes, err := parseTree([]byte(tree)); err == nil {
			t.Errorf("%s was read: %+v", tree, nodes[0])
		}
	}
}

func TestKeyFiles(t *testing.T) {
	who := whoAmI()
	m := newMasterKey()
	data, err := sealKeyFile(m, password, who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyFile(data, password); err != nil {
		t.Error(err)
	}
	if _, err := openKeyFile(data, "wrong"); err != errPassword {
		t.Errorf("with a wrong password: %v", err)
	}
	var f keyFile
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*keyFile){
		func(f *keyFile) { f.N = 1 << 40 },
		func(f *keyFile) { f.N = 1 << 24; f.R = 1 << 10 },
		func(f *keyFile) { f.P = 1 << 30 },
		func(f *keyFile) { f.N = -1 },
		func(f *keyFile) { f.N = 3 },
		func(f *keyFile) { f.R = 0 },
		func(f *keyFile) { f.KDF = "argon2" },
		func(f *keyFile) { f.Data = nil },
	} {
		changed := f
		change(&changed)
		data, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openKeyFile(data, password); err == nil {
			t.Errorf("opened: %+v", changed)
		}
	}
}

// aPack returns a whole pack with a few blobs.
func aPack(k *sealKey) []byte {
	p := new(pack)
	for i := range 3 {
		plain := bytes.Repeat([]byte{byte(i)}, 100*i+1)
		p.add(ID{byte(i)}, BlobType(i%2), k.seal(nil, plain), i*1000)
	}
	p.finish(k)
	return p.data
}

func FuzzPackHeader(f *testing.F) {
	f.Add(appendHeader(nil, []packedBlob{{ID: ID{1}, Length: 32}, {ID: ID{2}, Type: TreeBlob, Length: 100, Plain: 1000}}), int64(132))
	f.Add([]byte{4}, int64(0))
	f.Add([]byte{2, 255, 255, 255, 255}, int64(1<<32))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, header []byte, size int64) {
		blobs, err := parseHeader(header, size)
		if err != nil {
			return
		}
		if again := appendHeader(nil, blobs); !bytes.Equal(again, header) {
			t.Errorf("read as %+v, which is written as %x", blobs, again)
		}
		end := int64(0)
		for _, b := range blobs {
			if int64(b.Offset) != end || b.Length < sealOverhead {
				t.Errorf("blob %+v after %d", b, end)
			}
			end += int64(b.Length)
		}
		if end != size {
			t.Errorf("%d bytes of blobs, not %d", end, size)
		}
	})
}

// FuzzPack reads whatever is at the end of a pack; every second time it is given a seal that holds.
func FuzzPack(f *testing.F) {
	k := testKey()
	f.Add(aPack(k), false)
	f.Add(appendHeader(nil, []packedBlob{{ID: ID{1}, Length: 32}}), true)
	f.Add([]byte{0, 0, 0, 0}, false)
	f.Add([]byte{255, 255, 255, 255}, false)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed {
			p := &pack{data: make([]byte, 32)}
			start := len(p.data)
			p.data = k.seal(p.data, data)
			p.data = append(p.data, byte(len(p.data)-start), byte((len(p.data)-start)>>8), byte((len(p.data)-start)>>16), 0)
			data = p.data
		}
		r := &Repository{key: k, store: memory{"data": data}}
		blobs, err := r.packHeader(context.Background(), ID{}, int64(len(data)))
		if err != nil {
			return
		}
		for _, b := range blobs {
			if int(b.Offset)+int(b.Length) > len(data) {
				t.Errorf("blob %+v in a pack of %d bytes", b, len(data))
			}
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add([]byte(`{"nodes":[]}`))
	f.Add([]byte(`{"nodes":[{"name":"a\\\"b","type":"file","mode":420,"mtime":"2026-01-02T03:04:05.6+02:00","uid":0,"gid":0,"size":3,"content":["98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4"]}]}`))
	f.Add([]byte(`{"nodes":[{"name":"d","type":"dir","subtree":"98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4","content":null,"extended_attributes":[{"name":"user.x","value":"AA=="}]}]}`))
	f.Add([]byte(`{"nodes":[{"name":"l","type":"symlink","linktarget":"\ufffd","linktarget_raw":"/w=="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		nodes, err := parseTree(data)
		if err != nil {
			return
		}
		// What was read can be written, and is the same when it is read again.
		text := appendTree(nil, nodes)
		again, err := parseTree(text)
		if err != nil {
			t.Fatalf("written as %q: %v", text, err)
		}
		if !bytes.Equal(text, appendTree(nil, again)) {
			t.Errorf("%q is written as %q the second time", text, appendTree(nil, again))
		}
	})
}

func FuzzDocument(f *testing.F) {
	r := newRepository(nil, nil)
	r.key = testKey()
	f.Cleanup(r.Close)
	index := []byte(`{"packs":[{"id":"98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4","blobs":[{"id":"98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4","type":"tree","offset":0,"length":532,"uncompressed_length":2143}]}]}`)
	f.Add(index)
	f.Add(r.zip.EncodeAll(index, []byte{unpackedZstd}))
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","tree":"98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4","paths":["/a"],"hostname":"h","tags":["x"]}`))
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","exclusive":true,"hostname":"h","username":"u","pid":7}`))
	f.Add([]byte(`{"version":2,"id":"adb9915cfa","chunker_polynomial":"3da3358b4dc173"}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, plain []byte) {
		text, err := r.openDocument(r.key.seal(nil, plain))
		if err != nil {
			return
		}
		var file indexFile
		if json.Unmarshal(text, &file) == nil && file.check() == nil {
			x := newIndex()
			for _, p := range file.Packs {
				x.add(p)
				for _, b := range p.Blobs {
					if at, ok := x.find(b.Type, b.ID); !ok || at.end < at.Offset+at.Length && at.pack == p.ID && len(file.Packs) == 1 {
						t.Errorf("%+v is found at %+v", b, at)
					}
				}
			}
		}
		var s Snapshot
		var l lockFile
		var c config
		if json.Unmarshal(text, &s) == nil {
			_ = s.Partial()
		}
		if json.Unmarshal(text, &l) == nil {
			_ = l.String()
		}
		if json.Unmarshal(text, &c) == nil && c.check() == nil && !c.Polynomial.irreducible() {
			t.Errorf("config with polynomial %x", uint64(c.Polynomial))
		}
	})
}
