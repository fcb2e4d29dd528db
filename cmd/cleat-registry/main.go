// Command cleat-registry serves an image registry from a directory, makes images from
// a directory or a tar file, and pushes image archives.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
)

// version is set by the build.
var version = "unknown"

const usage = `Usage:
  cleat-registry serve   [--addr 127.0.0.1:5000] --data DIR [--htpasswd FILE] [--tls-cert FILE --tls-key FILE]
  cleat-registry collect --data DIR
  cleat-registry push    [--username NAME --password-stdin] [--image NAME] [--insecure] ARCHIVE REGISTRY/NAME[:TAG]
  cleat-registry mkimage --from-dir DIR | --from-tar FILE  --ref NAME[:TAG]  -o ARCHIVE  [options of the image]
  cleat-registry version

serve    answers as a registry until SIGTERM or SIGINT. Repositories under library/ make
         it a mirror of Docker Hub for engines started with --registry-mirror.
collect  removes what no image needs any more, as after images were deleted, while no
         registry serves the directory.
push     sends an image out of an archive (docker save or OCI layout) to a registry.
mkimage  makes an archive of an image with one layer; "mkimage --help" lists the options.
`

func main() {
	// The embedded registry and client log through logrus, at error level for what is
	// an ordinary answer; what matters is said here in plain words.
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.PanicLevel)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:])
	var bad *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, &bad):
		fmt.Fprintf(os.Stderr, "cleat-registry: %v\n\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "cleat-registry: %v\n", err)
		os.Exit(1)
	}
}

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func badUsage(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return badUsage("a command is missing")
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:])
	case "collect":
		return collect(ctx, args[1:])
	case "push":
		return push(ctx, args[1:])
	case "mkimage":
		return mkimage(args[1:])
	case "version", "--version":
		fmt.Println("cleat-registry", version)
		return nil
	case "help", "--help", "-h":
		fmt.Print(usage)
		return nil
	}
	return badUsage("unknown command %q", args[0])
}

// parse reads flags, which may stand before and after the other arguments, and returns
// the latter.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	fs.SetOutput(io.Discard)
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fs.SetOutput(os.Stdout)
				fmt.Printf("Options of cleat-registry %s:\n", fs.Name())
				fs.PrintDefaults()
				return nil, err
			}
			return nil, badUsage("%v", err)
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
}
