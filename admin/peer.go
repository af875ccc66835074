package admin

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerKey is the key in a request's context of the user at the connection's other end.
type peerKey struct{}

// withPeer puts into ctx which user has connected (SO_PEERCRED, unix(7)); nothing if that cannot be told.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || failed != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, int(peer.Uid))
}

// isOwner reports whether a request comes from who may do with Mainstay's process what they like anyway: root, or the user
// that it runs as. The others whom the socket lets in must not be able to make it run a program of theirs.
func isOwner(ctx context.Context) bool {
	uid, ok := ctx.Value(peerKey{}).(int)
	return ok && (uid == 0 || uid == os.Geteuid())
}
