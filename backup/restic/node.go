package restic

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A NodeType tells what a Node is in the file system.
type NodeType string

const (
	File       NodeType = "file"
	Dir        NodeType = "dir"
	Symlink    NodeType = "symlink"
	Device     NodeType = "dev"
	CharDevice NodeType = "chardev"
	Fifo       NodeType = "fifo"
	Socket     NodeType = "socket"
)

const modeMask = os.ModePerm | os.ModeType | os.ModeSetuid | os.ModeSetgid | os.ModeSticky

// A Node is one entry of a directory in a snapshot.
type Node struct {
	Name       string
	Type       NodeType
	Mode       os.FileMode
	ModTime    time.Time
	AccessTime time.Time
	ChangeTime time.Time
	UID, GID   uint32
	User       string
	Group      string
	Inode      uint64
	DeviceID   uint64
	Size       uint64
	Links      uint64
	LinkTarget string
	Xattrs     []Xattr
	Device     uint64
	Content    []ID // of a file: its parts in order
	Subtree    *ID  // of a directory
}

// An Xattr is an extended attribute.
type Xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// appendTree appends the JSON of a directory with the given nodes, which are sorted by name.
//
// A tree's id is the hash of these very bytes, so they are what restic writes: encoding/json's output for its
// structure, time zone included. They are written by hand because a snapshot of unchanged files does little else.
func appendTree(dst []byte, nodes []*Node) []byte {
	dst = append(dst, `{"nodes":[`...)
	for i, n := range nodes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = n.append(dst)
	}
	return append(dst, "]}\n"...)
}

func (n *Node) append(dst []byte) []byte {
	quoted := strconv.Quote(n.Name)
	dst = append(dst, `{"name":`...)
	dst = appendString(dst, quoted[1:len(quoted)-1])
	dst = append(dst, `,"type":"`...)
	dst = append(dst, n.Type...)
	dst = append(dst, '"')
	dst = appendNumber(dst, "mode", uint64(n.Mode))
	dst = appendTime(dst, "mtime", n.ModTime)
	dst = appendTime(dst, "atime", n.AccessTime)
	dst = appendTime(dst, "ctime", n.ChangeTime)
	dst = append(dst, `,"uid":`...)
	dst = strconv.AppendUint(dst, uint64(n.UID), 10)
	dst = append(dst, `,"gid":`...)
	dst = strconv.AppendUint(dst, uint64(n.GID), 10)
	dst = appendField(dst, "user", n.User)
	dst = appendField(dst, "group", n.Group)
	dst = appendNumber(dst, "inode", n.Inode)
	dst = appendNumber(dst, "device_id", n.DeviceID)
	dst = appendNumber(dst, "size", n.Size)
	dst = appendNumber(dst, "links", n.Links)
	dst = appendField(dst, "linktarget", n.LinkTarget)
	if !utf8.ValidString(n.LinkTarget) {
		dst = append(dst, `,"linktarget_raw":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, []byte(n.LinkTarget))
		dst = append(dst, '"')
	}
	dst = appendXattrs(dst, n.Xattrs)
	dst = appendNumber(dst, "device", n.Device)
	dst = append(dst, `,"content":`...)
	if n.Type == File {
		dst = append(dst, '[')
		for i, id := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendID(dst, id)
		}
		dst = append(dst, ']')
	} else {
		dst = append(dst, "null"...)
	}
	if n.Subtree != nil {
		dst = append(dst, `,"subtree":`...)
		dst = appendID(dst, *n.Subtree)
	}
	return append(dst, '}')
}

func appendXattrs(dst []byte, attributes []Xattr) []byte {
	if len(attributes) == 0 {
		return dst
	}
	dst = append(dst, `,"extended_attributes":[`...)
	for i, a := range attributes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"name":`...)
		dst = appendString(dst, a.Name)
		dst = append(dst, `,"value":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, a.Value)
		dst = append(dst, `"}`...)
	}
	return append(dst, ']')
}

func appendID(dst []byte, id ID) []byte {
	dst = append(dst, '"')
	dst = hex.AppendEncode(dst, id[:])
	return append(dst, '"')
}

// appendNumber appends a field, unless it is zero.
func appendNumber(dst []byte, key string, n uint64) []byte {
	if n == 0 {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	dst = append(dst, '"', ':')
	return strconv.AppendUint(dst, n, 10)
}

// appendField appends a field, unless it is empty.
func appendField(dst []byte, key, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	dst = append(dst, '"', ':')
	return appendString(dst, value)
}

func appendTime(dst []byte, key string, t time.Time) []byte {
	if year := t.Year(); year < 0 || year > 9999 { // no JSON for it
		t = time.Date(min(max(year, 0), 9999), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	}
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	dst = append(dst, '"', ':', '"')
	dst = t.AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}

// appendString appends a JSON string just as encoding/json does.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || strings.IndexByte(`"\<>&`, c) >= 0 {
			escaped, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always marshals
			}
			return append(dst, escaped...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// A jsonNode is a Node as it is read.
type jsonNode struct {
	Name          string      `json:"name"`
	Type          NodeType    `json:"type"`
	Mode          os.FileMode `json:"mode"`
	ModTime       time.Time   `json:"mtime"`
	AccessTime    time.Time   `json:"atime"`
	ChangeTime    time.Time   `json:"ctime"`
	UID           uint32      `json:"uid"`
	GID           uint32      `json:"gid"`
	User          string      `json:"user"`
	Group         string      `json:"group"`
	Inode         uint64      `json:"inode"`
	DeviceID      uint64      `json:"device_id"`
	Size          uint64      `json:"size"`
	Links         uint64      `json:"links"`
	LinkTarget    string      `json:"linktarget"`
	LinkTargetRaw []byte      `json:"linktarget_raw"`
	Xattrs        []Xattr     `json:"extended_attributes"`
	Device        uint64      `json:"device"`
	Content       []ID        `json:"content"`
	Subtree       *ID         `json:"subtree"`
}

// parseTree reads a directory. It refuses names that no directory can hold, or holds twice:
// whoever restores a tree may trust that each node stays in its directory.
func parseTree(data []byte) ([]*Node, error) {
	var tree struct {
		Nodes []jsonNode `json:"nodes"`
	}
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	nodes := make([]*Node, len(tree.Nodes))
	names := make(map[string]bool, len(tree.Nodes))
	for i := range tree.Nodes {
		n, err := tree.Nodes[i].node()
		if err != nil {
			return nil, err
		}
		if names[n.Name] {
			return nil, fmt.Errorf("two entries named %q", n.Name)
		}
		names[n.Name] = true
		nodes[i] = n
	}
	return nodes, nil
}

func (j *jsonNode) node() (*Node, error) {
	name := j.Name
	if strings.ContainsAny(name, `\"`) {
		unquoted, err := strconv.Unquote(`"` + name + `"`)
		if err != nil {
			return nil, fmt.Errorf("name %.100q: %w", name, err)
		}
		name = unquoted
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("%q is not the name of a file", name)
	}
	if (j.Type == Dir) != (j.Subtree != nil) {
		return nil, fmt.Errorf("%q is a %s, and its subtree does not fit", name, j.Type)
	}
	if j.Type != File && len(j.Content) > 0 {
		return nil, fmt.Errorf("%q is a %s and has content", name, j.Type)
	}
	target := j.LinkTarget
	if len(j.LinkTargetRaw) > 0 {
		target = string(j.LinkTargetRaw)
	}
	if j.Type == Symlink && (target == "" || strings.ContainsRune(target, 0)) {
		return nil, errors.New(strconv.Quote(name) + " is a symbolic link to nowhere")
	}
	return &Node{
		Name: name, Type: j.Type, Mode: j.Mode & modeMask,
		ModTime: j.ModTime, AccessTime: j.AccessTime, ChangeTime: j.ChangeTime,
		UID: j.UID, GID: j.GID, User: j.User, Group: j.Group,
		Inode: j.Inode, DeviceID: j.DeviceID, Size: j.Size, Links: j.Links,
		LinkTarget: target, Xattrs: j.Xattrs, Device: j.Device, Content: j.Content, Subtree: j.Subtree,
	}, nil
}
