package rootpath

import "errors"

// User is whom a process in a container runs as.
type User struct {
	UID, GID int
	Groups   []int  // supplementary groups, without duplicates
	Home     string // never empty
	Name     string // "" if the uid has no entry in the container's passwd file
}

// LookupUser finds the user that spec ("", "u", "u:g", numbers allowed) names in the container's /etc/passwd and /etc/group.
func LookupUser(rootFD int, spec string, extraGroups []string) (User, error) {
	return User{}, errors.New("rootpath: not available")
}
