package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundle is a bare OCI runtime with the image's files and Docker's defaults: a
// namespace of each kind, a control group, the default capabilities and seccomp
// profile. It has no layers, no log, no record and no network but loopback.
type bundle struct {
	program string
	root    string // its state
	dir     string
	cgroup  string
	spec    specs.Spec
	n       int
	alive   map[string]int // containers that are there, and their processes
	thread  chan func()
}

func (st *stage) bare(ctx context.Context, name, program string) (*system, error) {
	b := &bundle{program: program, root: st.path(name + "-state"), dir: st.path(name), cgroup: st.cgroup + "/" + name, alive: map[string]int{}}
	st.bundles = append(st.bundles, b)
	if err := unpackImage(st.image, filepath.Join(b.dir, "rootfs")); err != nil {
		return nil, fmt.Errorf("%s: %w", st.image, err)
	}
	var err error
	if b.spec, err = dockerLike(); err != nil {
		return nil, err
	}
	if b.thread, err = startThread(hideUnified); err != nil {
		return nil, err
	}
	return &system{name: name, bare: b}, b.life(ctx, nothing, func(string, float64) {})
}

// dockerLike is the configuration that Docker makes for a container with no options.
func dockerLike() (specs.Spec, error) {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
	s := specs.Spec{
		Version:  "1.0.2",
		Hostname: "bench",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Cwd: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=bench"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			MaskedPaths: []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
				"/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
	for _, ns := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.CgroupNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: ns})
	}
	var err error
	if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(&s); err != nil {
		return s, err
	}
	// These peers are older than the newest fields and actions of the profile.
	s.Linux.Seccomp.DefaultErrnoRet = nil
	return s, nil
}

// startThread returns where to send what is to run in a mount namespace of its own,
// which the programs that it starts have, too. It ends with the process.
func startThread(prepare func() error) (chan func(), error) {
	work, ready := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		ready <- errors.Join(err, prepare())
		for do := range work {
			do()
		}
	}()
	return work, <-ready
}

// configure writes the configuration of a container that runs args.
func (b *bundle) configure(args ...string) (id string, err error) {
	b.n++
	id = "bench" + strconv.Itoa(b.n)
	b.spec.Process.Args = args
	b.spec.Linux.CgroupsPath = b.cgroup + "/" + id
	data, err := json.Marshal(b.spec)
	if err != nil {
		return "", err
	}
	return id, os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644)
}

func (b *bundle) call(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	log := filepath.Join(b.dir, "log")
	cmd := exec.CommandContext(ctx, b.program, append([]string{"--root", b.root, "--log", log}, args...)...)
	ran := make(chan error, 1)
	b.thread <- func() { ran <- cmd.Run() }
	if err := <-ran; err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%v: %w: %s", args, err, text)
	}
	return nil
}

// create makes a container whose process we are the parent of once the runtime is gone.
func (b *bundle) create(ctx context.Context, id string) error {
	pidFile := filepath.Join(b.dir, "pid")
	if err := b.call(ctx, "create", "--bundle", b.dir, "--pid-file", pidFile, id); err != nil {
		return err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	b.alive[id], err = strconv.Atoi(strings.TrimSpace(string(text)))
	return err
}

func (b *bundle) wait(id string) error {
	for {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(b.alive[id], &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (b *bundle) delete(ctx context.Context, id string) error {
	if err := b.call(ctx, "delete", id); err != nil {
		return err
	}
	delete(b.alive, id)
	return nil
}

func (b *bundle) life(ctx context.Context, program string, record func(string, float64)) error {
	id, err := b.configure(program)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"create", func() error { return b.create(ctx, id) }},
		{"start", func() error { return b.call(ctx, "start", id) }},
		{"wait", func() error { return b.wait(id) }},
		{"rm", func() error { return b.delete(ctx, id) }},
	} {
		if err := timed(record, "  "+step.name, step.do); err != nil {
			return err
		}
	}
	return nil
}

// run starts a container that stays.
func (b *bundle) run(ctx context.Context, args ...string) (string, error) {
	id, err := b.configure(args...)
	if err == nil {
		err = b.create(ctx, id)
	}
	if err == nil {
		err = b.call(ctx, "start", id)
	}
	return id, err
}

func (b *bundle) remove(id string) error {
	pid, ok := b.alive[id]
	if !ok {
		return nil
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_ = b.wait(id)
	return b.delete(context.Background(), id)
}

func (b *bundle) clear() {
	for id := range b.alive {
		if err := b.remove(id); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// unpackImage puts the files of an archive's layers there. The archive is our own.
func unpackImage(archive, dir string) error {
	blobs := map[string][]byte{}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if blobs[h.Name], err = io.ReadAll(r); err != nil {
			return err
		}
	}
	var images []struct{ Layers []string }
	if err := json.Unmarshal(blobs["manifest.json"], &images); err != nil {
		return err
	}
	for _, layer := range images[0].Layers {
		if err := unpackLayer(blobs[layer], dir); err != nil {
			return err
		}
	}
	return nil
}

func unpackLayer(data []byte, dir string) error {
	var in io.Reader = strings.NewReader(string(data))
	if gz, err := gzip.NewReader(strings.NewReader(string(data))); err == nil {
		in = gz
	}
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, h.FileInfo().Mode().Perm())
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), path)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
					err = os.WriteFile(path, content, h.FileInfo().Mode().Perm())
				}
			}
		}
		if err != nil {
			return err
		}
	}
}
