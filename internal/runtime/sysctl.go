package runtime

import (
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/launch"
)

// networkSysctls are set in every network namespace of our own making: they make unprivileged ports and ping work
// without capabilities, as Docker does.
var networkSysctls = map[string]string{
	"net.ipv4.ip_unprivileged_port_start": "0",
	"net.ipv4.ping_group_range":           "0 2147483647",
}

// sysctls are written through a procfs that nobody has mounted anything on, before it is attached.
func (b *builder) sysctls() error {
	values := map[string]string{}
	if b.s.NetNS == NewNetwork && b.spareNet < 0 {
		maps.Copy(values, networkSysctls)
	}
	maps.Copy(values, b.s.Sysctls)
	if len(values) == 0 {
		return nil
	}
	how := b.strict(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC")
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if err := CheckSysctl(k, b.s.NetNS == HostNetwork, b.s.HostIPC); err != nil {
			return err
		}
		fd, op := b.openat2(b.proc, "sys/"+sysctlFile(k), how)
		if _, asked := b.s.Sysctls[k]; !asked {
			op.Ignore(syscall.ENOENT) // a kernel without IPv4 ping sockets
		}
		v := values[k]
		b.p.Call(unix.SYS_WRITE, "sysctl "+k, fd.Arg(), b.p.Str(v), launch.Int(len(v)))
	}
	return nil
}

// sysctlFile is a setting's path below /proc/sys. Its name may have slashes in the place of dots.
func sysctlFile(key string) string { return strings.ReplaceAll(key, ".", "/") }

// CheckSysctl lets through the settings that one of a container's own namespaces has, which those of network and IPC may
// not be: any other would change the host. The error is errdefs.ErrInvalidArgument.
func CheckSysctl(key string, hostNetwork, hostIPC bool) error {
	file := sysctlFile(key)
	switch dir, name := path.Split(file); {
	case path.Clean("/"+file) != "/"+file: // it leads elsewhere
	case strings.HasPrefix(file, "net/"):
		if hostNetwork {
			return invalid("sysctl %q is not allowed in the host's network namespace", key)
		}
		return nil
	case dir == "kernel/" && slices.Contains(ipcSysctls, name), strings.HasPrefix(file, "fs/mqueue/"):
		if hostIPC {
			return invalid("sysctl %q is not allowed in the host's IPC namespace", key)
		}
		return nil
	case file == "kernel/domainname", file == "kernel/hostname":
		return invalid("sysctl %q: set the host name and the domain name with their own options", key)
	}
	return invalid("sysctl '%s' is not allowed: it is not namespaced, so it would change the host", key)
}

// ipcSysctls are the settings below "kernel" that an IPC namespace has of its own.
var ipcSysctls = []string{"msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"}
