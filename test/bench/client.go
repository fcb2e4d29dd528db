package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"golang.org/x/sys/unix"
)

// lean is an HTTP client of an engine's socket that takes as little time of its own as a client can: each call writes and
// reads on the thread that makes it. Go's own client wakes two goroutines and the poller for a call, which on two
// processors is a third of what the shortest of them take, and is no engine's. It may be used concurrently.
type lean struct {
	socket string
	mu     sync.Mutex
	idle   []*wire
}

func leanClient(socket string) *http.Client { return &http.Client{Transport: &lean{socket: socket}} }

// RoundTrip ends when the request's context does.
func (l *lean) RoundTrip(req *http.Request) (*http.Response, error) {
	w, err := l.wire()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(req.Context(), w.interrupt)
	resp, err := w.exchange(req)
	if err != nil {
		stop()
		w.close()
		return nil, errors.Join(err, req.Context().Err())
	}
	resp.Body = &reply{ReadCloser: resp.Body, done: func(whole bool) {
		if stop() && whole && !resp.Close {
			l.mu.Lock()
			l.idle = append(l.idle, w)
			l.mu.Unlock()
		} else {
			w.close()
		}
	}}
	return resp, nil
}

// wire is one that was used before, if there is one that the engine has not closed.
func (l *lean) wire() (*wire, error) {
	for {
		l.mu.Lock()
		n := len(l.idle)
		if n == 0 {
			l.mu.Unlock()
			return dialWire(l.socket)
		}
		w := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		if w.open() {
			return w, nil
		}
		w.close()
	}
}

// wire is a connection whose reads and writes block their thread.
type wire struct {
	fd  int
	in  *bufio.Reader
	out *bufio.Writer
}

func dialWire(socket string) (*wire, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	w := &wire{fd: fd}
	w.in, w.out = bufio.NewReader(w), bufio.NewWriter(w)
	return w, nil
}

func (w *wire) exchange(req *http.Request) (*http.Response, error) {
	if err := req.Write(w.out); err != nil {
		return nil, err
	}
	if err := w.out.Flush(); err != nil {
		return nil, err
	}
	return http.ReadResponse(w.in, req)
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := again(func() (int, error) { return unix.Read(w.fd, p) })
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (w *wire) Write(p []byte) (written int, err error) {
	for written < len(p) && err == nil {
		var n int
		n, err = again(func() (int, error) { return unix.SendmsgN(w.fd, p[written:], nil, nil, unix.MSG_NOSIGNAL) })
		written += max(n, 0)
	}
	return written, err
}

func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

func (w *wire) open() bool {
	_, _, err := unix.Recvfrom(w.fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}

func (w *wire) interrupt() { _ = unix.Shutdown(w.fd, unix.SHUT_RDWR) }
func (w *wire) close()     { _ = unix.Close(w.fd) }

// reply tells what becomes of the connection when it has been read.
type reply struct {
	io.ReadCloser
	whole bool
	done  func(whole bool)
}

func (r *reply) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.whole = r.whole || errors.Is(err, io.EOF)
	return n, err
}

func (r *reply) Close() error {
	err := r.ReadCloser.Close()
	if r.done != nil {
		r.done(r.whole)
		r.done = nil
	}
	return err
}
