package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/internal/failure"
)

// version is an API version. Versions are ordered by number, so 1.9 < 1.24.
type version struct {
	major, minor int
}

// v returns the version 1.minor; every version served has that major number.
func v(minor int) version { return version{1, minor} }

// minVersion and maxVersion bound what is served. The floor is low on purpose:
// Traefik, Watchtower and old docker-java pin 1.24 or 1.25 in their requests, and what is
// built on containers/image (skopeo, buildah and podman of Debian 12) pins 1.22 where it
// reads and writes an engine's images.
var (
	minVersion = v(22)
	maxVersion = v(56)
)

// MinVersion and MaxVersion are the oldest and the newest API version served,
// as "major.minor".
const (
	MinVersion = "1.22"
	MaxVersion = "1.56"
)

func (a version) less(b version) bool {
	if a.major != b.major {
		return a.major < b.major
	}
	return a.minor < b.minor
}

// below reports whether the version is older than 1.minor.
func (a version) below(minor int) bool { return a.less(v(minor)) }

// from reports whether the version is 1.minor or newer.
func (a version) from(minor int) bool { return !a.below(minor) }

func (a version) String() string { return fmt.Sprintf("%d.%d", a.major, a.minor) }

// splitVersion cuts a leading /vX.Y off an escaped URL path. It returns the
// text of the version ("" if there is none) and the rest, which starts with a
// slash, and one only: programs that put an address which ends in a slash before
// their paths have two.
func splitVersion(path string) (text, rest string) {
	path = oneSlash(path)
	after, found := strings.CutPrefix(path, "/v")
	if !found {
		return "", path
	}
	text, rest, found = strings.Cut(after, "/")
	if !found || text == "" || strings.Trim(text, "0123456789.") != "" {
		return "", path
	}
	return text, oneSlash("/" + rest)
}

func oneSlash(path string) string {
	for strings.HasPrefix(path, "//") {
		path = path[1:]
	}
	return path
}

// parseVersion reads "major.minor". Further parts, which no client sends, do
// not take part in comparisons.
func parseVersion(text string) (version, error) {
	parts := strings.Split(text, ".")
	var numbers [2]int
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return version{}, failure.Invalid("invalid API version %q: it must be two numbers as in v%s", text, MaxVersion)
		}
		if i < len(numbers) {
			numbers[i] = n
		}
	}
	return version{numbers[0], numbers[1]}, nil
}

// negotiate turns the version in a path into the one to answer with. A path
// without a version gets the newest.
func negotiate(text string) (version, error) {
	if text == "" {
		return maxVersion, nil
	}
	asked, err := parseVersion(text)
	if err != nil {
		return maxVersion, err
	}
	if asked.less(minVersion) {
		return asked, failure.Invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", text, MinVersion)
	}
	if maxVersion.less(asked) {
		return asked, failure.Invalid("client version %s is too new. Maximum supported API version is %s", text, MaxVersion)
	}
	return asked, nil
}
