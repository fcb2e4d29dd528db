package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/mount"
)

// resolvePatience bounds the look-up of a server's host name.
const resolvePatience = 20 * time.Second

// credentialsMax is more than mount(2) takes of options, in bytes.
const credentialsMax = 4096

// forKernel returns the options of a volume with what mount.nfs and mount.cifs do before the kernel is asked: names of
// servers become addresses, and a file of credentials what it holds. The kernel looks up no names, and ignores
// credentials=.
func forKernel(ctx context.Context, opts map[string]string) (list string, err error) {
	switch t := opts[optType]; {
	case strings.HasPrefix(t, "nfs"):
		items := mount.SplitOptions(opts[optData])
		_, err = resolve(ctx, items, "addr")
		return strings.Join(items, ","), err
	case t == "cifs" || t == "smb3":
		return forSMB(ctx, opts[optDevice], mount.SplitOptions(opts[optData]))
	}
	return opts[optData], nil
}

func forSMB(ctx context.Context, device string, items []string) (list string, err error) {
	for i, item := range items {
		key, path, _ := strings.Cut(item, "=")
		if key != "credentials" && key != "cred" {
			continue
		}
		if items[i], err = credentials(path); err != nil {
			return "", err
		}
	}
	found, err := resolve(ctx, items, "addr", "ip")
	if err != nil {
		return "", err
	}
	if host := shareHost(device); !found && host != "" {
		addr, err := lookUp(ctx, host)
		if err != nil {
			return "", err
		}
		items = append(items, "addr="+addr)
	}
	return strings.Join(slices.DeleteFunc(items, func(item string) bool { return item == "" }), ","), nil
}

// resolve replaces the host names that are the values of keys, and says whether there was any of them.
func resolve(ctx context.Context, items []string, keys ...string) (found bool, err error) {
	for i, item := range items {
		key, host, _ := strings.Cut(item, "=")
		if host == "" || !slices.Contains(keys, key) {
			continue
		}
		found = true
		addr, err := lookUp(ctx, host)
		if err != nil {
			return true, err
		}
		items[i] = key + "=" + addr
	}
	return found, nil
}

// shareHost is the server of //server/share, or none: the kernel says what is wrong with it then.
func shareHost(device string) string {
	rest, ok := strings.CutPrefix(strings.ReplaceAll(device, `\`, "/"), "//")
	if !ok {
		return ""
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// lookUp returns the address of a host; of several an IPv4 one first, as most servers export there.
func lookUp(ctx context.Context, host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int {
		switch {
		case a.Unmap().Is4() == b.Unmap().Is4():
			return 0
		case a.Unmap().Is4():
			return -1
		}
		return 1
	})
	return addrs[0].Unmap().String(), nil
}

// credentials reads a file of credentials as mount.cifs(8) does: lines username=, password= and domain=. Nothing of what
// it holds is in an error.
func credentials(path string) (list string, err error) {
	content, err := smallFile(path)
	if err != nil {
		return "", fmt.Errorf("its credentials: %w", err)
	}
	var items []string
	for n, line := range strings.Split(content, "\n") {
		line = strings.TrimSuffix(strings.TrimLeft(line, " \t"), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, given := strings.Cut(line, "=")
		name := credential(key)
		switch {
		case name == "" || !given:
			return "", fmt.Errorf("line %d of its credentials %s is not one of username=, password= and domain=", n+1, path)
		case strings.ContainsRune(value, 0), name != "password" && strings.ContainsRune(value, ','):
			return "", fmt.Errorf("line %d of its credentials %s holds a character that cannot be given to the kernel", n+1, path)
		}
		items = append(items, name+"="+strings.ReplaceAll(value, ",", ",,"))
	}
	return strings.Join(items, ","), nil
}

// credential is the kernel's name of a key, which mount.cifs knows by how it begins.
func credential(key string) string {
	key = strings.ToLower(strings.TrimSpace(key))
	for begin, name := range map[string]string{"user": "username", "pass": "password", "dom": "domain"} {
		if strings.HasPrefix(key, begin) {
			return name
		}
	}
	return ""
}

// smallFile reads a regular file of the host, and waits for nobody who would write it.
func smallFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// In the kernel's words clients take it for the container's program.
		return "", fmt.Errorf("there is no file %s", path)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() || info.Size() > credentialsMax {
		return "", fmt.Errorf("%s is no file of at most %d bytes", path, credentialsMax)
	}
	content, err := io.ReadAll(io.LimitReader(f, credentialsMax))
	return string(content), err
}
