package build

import (
	"strings"

	"github.com/sirupsen/logrus"
)

// warnings is how what BuildKit's client says beside a build is printed: a line as the commands' own. What is ordinary is
// left out.
type warnings struct{}

func (warnings) Format(e *logrus.Entry) ([]byte, error) {
	if strings.Contains(e.Message, "fsverity") { // most filesystems do without, which changes nothing
		return nil, nil
	}
	return []byte(strings.ToUpper(e.Level.String()) + ": " + e.Message + "\n"), nil
}
