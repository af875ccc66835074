package enginetest

import (
	"net"
	"testing"
)

// FreeAddresses returns n different loopback addresses, host:port, that nothing listened on a moment ago.
func FreeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after all are had, so that they differ
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// Bindable returns a [Case.Released] that binds each of the addresses, host:port, and lets go of it again.
func Bindable(addresses ...string) func() error {
	return func() error {
		for _, address := range addresses {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			l.Close()
		}
		return nil
	}
}
