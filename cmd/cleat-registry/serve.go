package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/registryserver"
	"github.com/cleatlabs/cleat/registryserver/imagefile"
)

func serve(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	addr := fs.String("addr", "127.0.0.1:5000", "`address` to listen on; port 0 takes any free one")
	cfg := registryserver.Config{
		Log: func(line string) { fmt.Fprintln(os.Stderr, time.Now().Format(time.DateTime), line) },
	}
	fs.StringVar(&cfg.Data, "data", "", "`directory` of the repositories (made if missing)")
	fs.StringVar(&cfg.Htpasswd, "htpasswd", "", "`file` of users and bcrypt passwords; everybody may come in without it")
	fs.StringVar(&cfg.TLSCert, "tls-cert", "", "certificate `file` (PEM)")
	fs.StringVar(&cfg.TLSKey, "tls-key", "", "key `file` (PEM)")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return badUsage("serve takes no argument %q", rest[0])
	}
	if cfg.Data == "" {
		return badUsage("serve needs --data DIR")
	}
	// Not tied to ctx: requests under way are finished after the signal.
	server, err := registryserver.New(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("cannot serve on %s: %w", *addr, err)
	}
	fmt.Printf("listening on %s\n", l.Addr())
	return server.Serve(ctx, l)
}

func collect(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("collect", flag.ContinueOnError)
	data := fs.String("data", "", "`directory` of the repositories")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return badUsage("collect takes no argument %q", rest[0])
	}
	if *data == "" {
		return badUsage("collect needs --data DIR")
	}
	freed, err := registryserver.Collect(ctx, *data)
	if err != nil {
		return err
	}
	fmt.Println("freed", units.HumanSize(float64(freed)))
	return nil
}

func push(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("push", flag.ContinueOnError)
	var to imagefile.Destination
	fs.StringVar(&to.Username, "username", "", "user `name` at the registry")
	stdin := fs.Bool("password-stdin", false, "read the password from standard input")
	fs.BoolVar(&to.Insecure, "insecure", false, "allow plain HTTP and certificates that cannot be verified (loopback always does)")
	which := fs.String("image", "", "`name` of the image, for an archive that has several")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return badUsage("push needs an archive and a name to push to")
	}
	to.Ref = rest[1]
	if *stdin {
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil && line == "" {
			return fmt.Errorf("read the password: %w", err)
		}
		to.Password = strings.TrimRight(line, "\r\n")
	}
	archive, err := imagefile.OpenArchive(rest[0])
	if err != nil {
		return err
	}
	defer archive.Close()
	image, err := choose(archive.Images(), *which)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	if err := archive.Push(ctx, image, to); err != nil {
		return err
	}
	fmt.Printf("%s: digest: %s size: %d\n", to.Ref, image.Target.Digest, image.Target.Size)
	return nil
}

// choose picks the image of an archive by name, or the only one.
func choose(images []imagefile.Entry, name string) (imagefile.Entry, error) {
	var names []string
	same := true
	for _, i := range images {
		if name != "" && i.Name == name {
			return i, nil
		}
		same = same && i.Target.Digest == images[0].Target.Digest
		names = append(names, i.Name)
	}
	switch {
	case len(images) == 0:
		return imagefile.Entry{}, fmt.Errorf("the archive holds no image")
	case name != "":
		return imagefile.Entry{}, fmt.Errorf("the archive holds no image %q, but %q", name, names)
	case !same:
		return imagefile.Entry{}, fmt.Errorf("the archive holds several images, choose one with --image: %q", names)
	}
	return images[0], nil
}
