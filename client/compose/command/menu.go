package command

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// enabled reads a switch of the environment. What cannot be read is off, as with docker compose.
func enabled(variable string, unset bool) bool {
	text, set := os.LookupEnv(variable)
	if !set {
		return unset
	}
	if text == "y" || text == "yes" {
		return true
	}
	on, err := strconv.ParseBool(text)
	return err == nil && on
}

// menu is the line of shortcuts below the output of an attached `up` on a terminal.
type menu struct {
	keys chan byte // what was typed; nil without a menu

	draw  func()
	close func()
}

// menu shows the shortcuts, if somebody is there to see and type them. Ctrl-C and Ctrl-Z
// stay what they are.
func (s *session) menu(w *watcher) (*menu, error) {
	in, terminal := s.app.in.(*os.File)
	if !s.flags.menu || !s.app.terminal() || !terminal {
		return &menu{draw: func() {}, close: func() {}}, nil
	}
	fd := int(in.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	single := *before
	single.Lflag &^= unix.ICANON | unix.ECHO
	single.Cc[unix.VMIN], single.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &single); err != nil {
		return nil, err
	}
	m := &menu{keys: make(chan byte)}
	m.draw = func() {
		watch := "Enable Watch"
		if w.running() {
			watch = "Disable Watch"
		}
		s.logs.Footer(shortcut("w", watch) + "   " + shortcut("d", "Detach"))
	}
	done := make(chan struct{})
	m.close = sync.OnceFunc(func() {
		close(done)
		s.logs.Footer("")
		m.draw = func() {}
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, before)
	})
	go m.read(in, done)
	m.draw()
	return m, nil
}

// read passes on what is typed. The read that waits when the menu closes ends with the
// process.
func (m *menu) read(in *os.File, done <-chan struct{}) {
	key := make([]byte, 1)
	for {
		if n, err := in.Read(key); err != nil || n == 0 {
			return
		}
		select {
		case m.keys <- key[0]:
		case <-done:
			return
		}
	}
}

func shortcut(key, what string) string {
	return "\x1b[1;7m" + key + "\x1b[0m\x1b[2m " + what + "\x1b[0m"
}
