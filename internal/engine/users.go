package engine

import (
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// users remembers whom the users of containers are by their images' files: most
// containers have not changed them, and to find, open and read both costs a start
// as much as many of its mounts do.
type users struct {
	mu    sync.Mutex
	known map[userKey]rootpath.User
}

type userKey struct {
	chain        digest.Digest // of the image's layers
	spec, groups string
}

// maxUsers bounds what is remembered: names are a client's to choose.
const maxUsers = 256

// of finds the user that c runs as in its root filesystem.
func (u *users) of(c *container.Container, r *container.Record, rootFD int) (rootpath.User, error) {
	var st unix.Stat_t
	if unix.Lstat(c.Path(upperDir)+"/etc", &st) != unix.ENOENT { // a link would be followed to the host's files
		return lookupUser(rootFD, r.Config.User, r.HostConfig.GroupAdd)
	}
	key := userKey{r.Image.ChainID, r.Config.User, strings.Join(r.HostConfig.GroupAdd, "\x00")}
	u.mu.Lock()
	found, ok := u.known[key]
	u.mu.Unlock()
	if !ok {
		var err error
		if found, err = lookupUser(rootFD, r.Config.User, r.HostConfig.GroupAdd); err != nil {
			return found, err
		}
		if leadsAway(rootFD) {
			return found, nil
		}
		u.mu.Lock()
		if u.known == nil || len(u.known) >= maxUsers {
			u.known = map[userKey]rootpath.User{}
		}
		u.known[key] = found
		u.mu.Unlock()
	}
	found.Groups = slices.Clone(found.Groups)
	return found, nil
}

// leadsAway says whether the files are reached by links: a change of what these lead to is not seen in /etc.
func leadsAway(rootFD int) bool {
	for _, name := range []string{"etc", "etc/passwd", "etc/group"} {
		var st unix.Stat_t
		if unix.Fstatat(rootFD, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return true
		}
	}
	return false
}
