package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/registryserver/imagefile"
)

func mkimage(args []string) error {
	fs := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	r := imagefile.Recipe{}
	fs.StringVar(&r.Dir, "from-dir", "", "root `directory`")
	fs.StringVar(&r.Tar, "from-tar", "", "tar `file` of the root directory; gzip, zstd and bzip2 are recognised")
	ref := fs.String("ref", "", "`name[:tag]` of the image")
	out := fs.String("o", "", "archive `file` to write")
	configFlags(fs, &r.Config)
	fs.StringVar(&r.Architecture, "arch", "", "`architecture` that the programs are for (default this machine's)")
	compression := fs.String("compression", string(imagefile.Gzip), "of the layer: gzip, zstd or none")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return badUsage("mkimage takes no argument %q", rest[0])
	case *ref == "":
		return badUsage("mkimage needs --ref NAME[:TAG]")
	case *out == "":
		return badUsage("mkimage needs -o ARCHIVE")
	case (r.Dir == "") == (r.Tar == ""):
		return badUsage("mkimage needs either --from-dir or --from-tar")
	}
	r.Compression = imagefile.Compression(*compression)
	if err := nameImage(&r, *ref); err != nil {
		return err
	}
	if r.Created, err = creationDate(); err != nil {
		return err
	}
	id, err := imagefile.Make(r, *out)
	if err != nil {
		return err
	}
	fmt.Println(id)
	return nil
}

// configFlags are those of what the image says about containers of it.
func configFlags(fs *flag.FlagSet, cfg *dockerspec.DockerOCIImageConfig) {
	fs.Var(listFlag(&cfg.Entrypoint), "entrypoint", "entrypoint as a JSON `array`")
	fs.Var(listFlag(&cfg.Cmd), "cmd", "command as a JSON `array`")
	fs.Func("env", "variable `K=V`; may be repeated", func(v string) error {
		if k, _, ok := strings.Cut(v, "="); !ok || k == "" {
			return fmt.Errorf("%q is not K=V", v)
		}
		cfg.Env = append(cfg.Env, v)
		return nil
	})
	fs.Func("expose", "`port[/proto]` that the image listens on; may be repeated", func(v string) error {
		port, err := exposed(v)
		if err != nil {
			return err
		}
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts = map[string]struct{}{}
		}
		cfg.ExposedPorts[port] = struct{}{}
		return nil
	})
	fs.Func("volume", "`path` that becomes a volume; may be repeated", func(v string) error {
		if !strings.HasPrefix(v, "/") {
			return fmt.Errorf("%q is not an absolute path", v)
		}
		if cfg.Volumes == nil {
			cfg.Volumes = map[string]struct{}{}
		}
		cfg.Volumes[v] = struct{}{}
		return nil
	})
	fs.Func("label", "label `K=V`; may be repeated", func(v string) error {
		k, value, _ := strings.Cut(v, "=")
		if k == "" {
			return fmt.Errorf("%q is not K=V", v)
		}
		if cfg.Labels == nil {
			cfg.Labels = map[string]string{}
		}
		cfg.Labels[k] = value
		return nil
	})
	fs.StringVar(&cfg.WorkingDir, "workdir", "", "working `directory`")
	fs.StringVar(&cfg.User, "user", "", "`user[:group]` to run as")
	fs.StringVar(&cfg.StopSignal, "stopsignal", "", "`signal` that stops the container")
	fs.Func("healthcheck", "health check as in image configurations, a JSON `object` such as {\"Test\":[\"CMD-SHELL\",\"true\"]}", func(v string) error {
		return json.Unmarshal([]byte(v), &cfg.Healthcheck)
	})
}

// nameImage checks the name that an image is to have.
func nameImage(r *imagefile.Recipe, ref string) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("--ref %q: %w", ref, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return badUsage("--ref %q: give a tag, not a digest", ref)
	}
	named = reference.TagNameOnly(named)
	r.Name, r.Short = named.String(), reference.FamiliarString(named)
	return nil
}

// creationDate follows SOURCE_DATE_EPOCH, by which builds are made reproducible.
func creationDate() (time.Time, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%s is not a number of seconds", v)
	}
	return time.Unix(seconds, 0), nil
}

// exposed checks a port and adds the protocol to it.
func exposed(v string) (string, error) {
	port, proto, ok := strings.Cut(v, "/")
	if !ok {
		proto = "tcp"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("%q is not a port", v)
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return "", fmt.Errorf("%q has an unknown protocol", v)
	}
	return port + "/" + proto, nil
}

// jsonList is a flag whose value is a JSON array of strings.
type jsonList struct{ to *[]string }

func listFlag(to *[]string) jsonList { return jsonList{to} }

func (l jsonList) String() string { return "" }

func (l jsonList) Set(v string) error {
	if err := json.Unmarshal([]byte(v), l.to); err != nil {
		return fmt.Errorf(`%s is not a JSON array of strings such as ["nginx","-g","daemon off;"]`, v)
	}
	return nil
}
