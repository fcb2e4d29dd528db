package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// commandHint says what is wrong with a command that is not there in a container, when
// it is one of the mistakes that everybody makes once: Docker's words alone have
// nobody find it. It is "" for others.
func (a *app) commandHint(text, verb, object string, argv []string) string {
	const missing = "executable file not found"
	if len(argv) == 0 || !strings.Contains(text, missing) && !strings.Contains(text, "no such file or directory") {
		return ""
	}
	first := argv[0]
	switch {
	case !strings.Contains(text, `exec: "`+first+`"`): // the image's entrypoint, or something else
		return ""
	case strings.HasPrefix(first, "-"):
		return fmt.Sprintf("What follows %s is the command to run in it: options of '%s %s' stand before it", object, a.name, verb)
	case strings.ContainsAny(first, " \t"):
		return fmt.Sprintf("%q is looked for as one program, blanks and all: write the command without the quotes, or sh -c %q", first, first)
	case first == "bash":
		return "Not every image has bash: sh is in nearly all"
	}
	return ""
}

// whyKilled says that a container which ended by SIGKILL has run out of memory since began, if it has: what it has written
// does not tell. The events know it even of one that has been removed. It is "" for all else, and where the engine does
// not answer soon.
func (a *app) whyKilled(ctx context.Context, id string, code int, began time.Time) string {
	if code != 128+int(unix.SIGKILL) {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	stamp := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	events := a.conn.Events(ctx, client.EventsListOptions{
		Since: stamp(began), Until: stamp(time.Now()),
		Filters: make(client.Filters).Add("container", id).Add("event", "oom"),
	})
	select {
	case <-events.Messages:
		return "The container ran out of memory, and the kernel killed it: give it more (--memory), or let it need less"
	case <-events.Err:
		return ""
	}
}

// hinted puts a hint, if there is one, in a paragraph of its own behind the error.
func hinted(err error, hint string) error {
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w\n\n%s", err, hint)
}

// parseImage is what an image's name means, or an error that shows it and says what is
// commonly wrong with it.
func parseImage(name string) (reference.Reference, error) {
	ref, err := reference.ParseAnyReference(name)
	return ref, explainReference(name, err)
}

// explainReference says what is commonly wrong with an image's name.
func explainReference(name string, err error) error {
	if !errors.Is(err, reference.ErrReferenceInvalidFormat) {
		return err
	}
	_, bare, isURL := strings.Cut(name, "://")
	switch {
	case name == "":
		return fmt.Errorf("%w: the image's name is empty", err)
	case isURL:
		return fmt.Errorf("%w: %q is a URL: write %s", err, name, bare)
	default:
		return fmt.Errorf("%w: %q", err, name)
	}
}
