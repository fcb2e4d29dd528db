package e2e

import (
	"io"
	"net"
	"path/filepath"
	"testing"
)

// sshAgent is an agent that holds no keys; it returns its socket.
func sshAgent(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				question := make([]byte, 5) // length 1, "which keys have you?"
				for {
					if _, err := io.ReadFull(c, question); err != nil {
						return
					}
					if _, err := c.Write([]byte{0, 0, 0, 5, 12, 0, 0, 0, 0}); err != nil {
						return
					}
				}
			}()
		}
	}()
	return socket
}
