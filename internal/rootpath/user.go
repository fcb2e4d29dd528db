package rootpath

import (
	"bytes"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// User is whom a process in a container runs as.
type User struct {
	UID, GID int
	Groups   []int  // supplementary groups in the order found, without duplicates; the first is GID
	Home     string // never empty: "/" if nothing else is known
	Name     string // "" if the uid has no entry in the container's passwd file
}

// The files are an image's: hostile ones must cost neither much memory nor much time.
const (
	maxFile   = 10 << 20 // bytes of /etc/passwd and /etc/group
	maxLine   = 1 << 20  // bytes of a line
	maxGroups = 65536    // the kernel's limit of supplementary groups
	maxID     = math.MaxInt32
)

var errIDRange = errors.New("uids and gids must be in range 0-2147483647")

// LookupUser finds the user that spec names in the container's /etc/passwd and /etc/group, by Docker's rules. spec is
// "" (root), "user", "uid", "user:group" and so on. A number is always an id, never a name, and needs no entry in the
// files, which may be missing; one out of range is refused. The first entry that matches counts. With a group in spec,
// the user's other groups are not taken. extraGroups (names or ids) are added. An entry with an id that is not a number
// matches nothing: it must not pass for 0.
//
// Errors: errdefs.ErrInvalidArgument, with Docker's text ("unable to find user x: no matching entries in passwd file").
func LookupUser(rootFD int, spec string, extraGroups []string) (User, error) {
	passwd, err := readOptional(rootFD, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := readOptional(rootFD, "/etc/group")
	if err != nil {
		return User{}, err
	}
	return lookup(passwd, group, spec, extraGroups)
}

// readOptional reads a file that an image may do without.
func readOptional(rootFD int, path string) ([]byte, error) {
	b, err := ReadFile(rootFD, path, maxFile)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if Unfit(err) {
		return nil, failure.Invalid("%w", err)
	}
	return b, err
}

func lookup(passwd, group []byte, spec string, extraGroups []string) (User, error) {
	userArg, groupArg, _ := strings.Cut(spec, ":")
	groupArg, _, _ = strings.Cut(groupArg, ":")
	u, err := findUser(passwd, userArg)
	if err != nil {
		return User{}, err
	}
	var more []int
	if groupArg != "" {
		u.GID, err = findGroup(group, groupArg)
	} else if u.Name != "" {
		more, err = memberships(group, u.Name)
	}
	if err != nil {
		return User{}, err
	}
	groups := append([]int{u.GID}, more...)
	for _, name := range extraGroups {
		gid, err := findGroup(group, name)
		if err != nil {
			return User{}, err
		}
		groups = append(groups, gid)
	}
	u.Groups, err = unique(groups)
	return u, err
}

// unique removes duplicates and keeps the order.
func unique(ids []int) ([]int, error) {
	seen := make(map[int]struct{}, len(ids))
	out := ids[:0]
	for _, id := range ids {
		if _, ok := seen[id]; !ok {
			seen[id] = struct{}{}
			out = append(out, id)
		}
	}
	if len(out) > maxGroups {
		return nil, failure.Invalid("the user is in more than %d groups", maxGroups)
	}
	return slices.Clip(out), nil
}

// findUser finds the entry that arg names: a uid, a name, or "" for root.
func findUser(passwd []byte, arg string) (User, error) {
	uid, numeric, err := parseID(arg)
	if err != nil {
		return User{}, failure.Invalid("unable to find user %s: %w", arg, err)
	}
	if arg == "" {
		numeric = true
	}
	u := User{UID: uid, Home: "/"}
	found := false
	err = eachLine(passwd, "/etc/passwd", func(line []byte) bool {
		f := fields[[6][]byte](line) // name:password:uid:gid:comment:home
		id, gid, ok := ids(f[2], f[3])
		if !ok || numeric && id != uid || !numeric && string(f[0]) != arg {
			return true
		}
		found = true
		u.Name, u.UID, u.GID = string(f[0]), id, gid
		if len(f[5]) > 0 {
			u.Home = string(f[5])
		}
		return false
	})
	if err != nil {
		return User{}, err
	}
	if !found && !numeric {
		return User{}, failure.Invalid("unable to find user %s: no matching entries in passwd file", arg)
	}
	return u, nil
}

// findGroup finds the id of the group that arg, a name or an id, stands for.
func findGroup(group []byte, arg string) (int, error) {
	gid, numeric, err := parseID(arg)
	if err != nil {
		return 0, failure.Invalid("unable to find group %s: %w", arg, err)
	}
	if numeric {
		return gid, nil
	}
	found := false
	err = eachLine(group, "/etc/group", func(line []byte) bool {
		f := fields[[4][]byte](line) // name:password:gid:members
		id, ok := entryID(f[2])
		if !ok || string(f[0]) != arg {
			return true
		}
		found, gid = true, id
		return false
	})
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, failure.Invalid("unable to find group %s: no matching entries in group file", arg)
	}
	return gid, nil
}

// memberships lists the groups that have the user of that name as a member.
func memberships(group []byte, name string) ([]int, error) {
	var gids []int
	err := eachLine(group, "/etc/group", func(line []byte) bool {
		f := fields[[4][]byte](line)
		id, ok := entryID(f[2])
		if !ok {
			return true
		}
		for member := range bytes.SplitSeq(f[3], []byte(",")) {
			if string(member) == name {
				gids = append(gids, id)
				break
			}
		}
		return len(gids) <= maxGroups
	})
	return gids, err
}

// parseID tells whether arg is a number, and refuses one that is no id: it must not be taken for a name.
func parseID(arg string) (id int, numeric bool, err error) {
	n, err := strconv.Atoi(arg)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (n < 0 || n > maxID):
		return 0, true, errIDRange
	case err != nil:
		return 0, false, nil
	}
	return n, true, nil
}

// entryID is the id in an entry of a file.
func entryID(field []byte) (int, bool) {
	id, numeric, err := parseID(string(field))
	return id, numeric && err == nil
}

func ids(uid, gid []byte) (u, g int, ok bool) {
	u, ok1 := entryID(uid)
	g, ok2 := entryID(gid)
	return u, g, ok1 && ok2
}

// fields splits a line at its colons into exactly as many fields as the array has; missing ones are empty, more are
// dropped.
func fields[A [4][]byte | [6][]byte](line []byte) A {
	var out A
	for i := range len(out) {
		field, rest, _ := bytes.Cut(line, []byte(":"))
		out[i] = field
		line = rest
	}
	return out
}

// eachLine calls f with each line that is not empty until f returns false.
func eachLine(file []byte, name string, f func(line []byte) bool) error {
	for line := range bytes.Lines(file) {
		if len(line) > maxLine {
			return failure.Invalid("%s in the container has a line of more than %d bytes", name, maxLine)
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && !f(line) {
			return nil
		}
	}
	return nil
}
