package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connClients is how many clients open connections at the same time.
const connClients = 8

// accept serves connections one after the other on one thread: each gets its client's
// address as the server sees it, and is closed. It is to cost next to nothing beside
// what the kernel does.
func accept(port string) error {
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(num)}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1024); err != nil {
		return err
	}
	for {
		var from unix.RawSockaddrInet4
		size := uint32(unsafe.Sizeof(from))
		c, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)), 0, 0, 0)
		if errno != 0 {
			continue // a client that has gone
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, c, uintptr(unsafe.Pointer(&from.Addr[0])), 4)
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, c, 0, 0)
	}
}

// dial opens connections to a server that accept runs, one after the other from each
// of some threads, and prints how many it were in a second. With addresses in from,
// the clients have these, and each answer must be the address of its client.
func dial(server, port, length string, from []string) error {
	var sa unix.RawSockaddrInet4
	target, err := netip.ParseAddrPort(server + ":" + port)
	if err != nil {
		return err
	}
	sa.Family, sa.Addr = unix.AF_INET, target.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], target.Port())
	span, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(connClients + 1)
	debug.SetGCPercent(-1)
	var count atomic.Int64
	var stop atomic.Bool
	errs := make([]error, connClients)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range connClients {
		wg.Go(func() {
			runtime.LockOSThread()
			var own netip.Addr
			if len(from) > 0 {
				own = netip.MustParseAddr(from[i%len(from)])
			}
			for !stop.Load() {
				if errs[i] = connectOnce(&sa, own); errs[i] != nil {
					return
				}
				count.Add(1)
			}
		})
	}
	time.Sleep(span)
	stop.Store(true)
	took := time.Since(begin)
	n := count.Load()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println(float64(n) / took.Seconds())
	return nil
}

func connectOnce(sa *unix.RawSockaddrInet4, own netip.Addr) error {
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return fmt.Errorf("socket: %w", errno)
	}
	defer syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	if own.IsValid() {
		// The port is chosen with the connection.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(int(fd), &unix.SockaddrInet4{Addr: own.As4()}); err != nil {
			return fmt.Errorf("bind %s: %w", own, err)
		}
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(sa)), unsafe.Sizeof(*sa)); errno != 0 {
		return fmt.Errorf("connect: %w", errno)
	}
	var seen [4]byte
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&seen[0])), 4)
	if errno != 0 || n != 4 {
		return fmt.Errorf("read: %d bytes, %w", n, errno)
	}
	if own.IsValid() && seen != own.As4() {
		return fmt.Errorf("the server sees %v instead of %s", seen, own)
	}
	return nil
}

// askMany looks a name up, one time after the other, at the first server of
// resolv.conf, and writes the median and the 99th percentile to a file, in ms.
func askMany(name, times, file string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	server, err := firstServer()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 53, Addr: server.As4()}); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return err
	}
	query := question(name)
	answer := make([]byte, 1500)
	took := make([]time.Duration, n)
	for i := range took {
		binary.BigEndian.PutUint16(query, uint16(i))
		begin := time.Now()
		if err := ask(fd, query, answer); err != nil {
			return err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	return os.WriteFile(file, fmt.Append(nil, ms(took[n/2]), " ", ms(took[n*99/100])), 0o644)
}

func ask(fd int, query, answer []byte) error {
	if _, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&query[0])), uintptr(len(query))); errno != 0 {
		return fmt.Errorf("ask: %w", errno)
	}
	got, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&answer[0])), uintptr(len(answer)))
	// Go's scheduler interrupts threads that it misses.
	for begin := time.Now(); errno == unix.EINTR && time.Since(begin) < 2*time.Second; {
		got, _, errno = syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&answer[0])), uintptr(len(answer)))
	}
	switch {
	case errno != 0:
		return fmt.Errorf("answer: %w", errno)
	case got < 12 || !bytes.Equal(answer[:2], query[:2]) || answer[3]&0xf != 0 || binary.BigEndian.Uint16(answer[6:]) == 0:
		return fmt.Errorf("no answer to the question: % x", answer[:got])
	}
	return nil
}

// question is a query for the A record of a name.
func question(name string) []byte {
	q := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

func firstServer() (netip.Addr, error) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return netip.Addr{}, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			return netip.ParseAddr(f[1])
		}
	}
	return netip.Addr{}, errors.New("resolv.conf names no server")
}
