package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/docker/cli/templates"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cleatlabs/cleat/client/term"
)

// inspected is a record as history inspect shows it; its names are buildx's.
type inspected struct {
	Name       string `json:",omitempty"`
	Ref        string
	Context    string   `json:",omitempty"`
	Dockerfile string   `json:",omitempty"`
	Target     string   `json:",omitempty"`
	Platform   []string `json:",omitempty"`

	StartedAt   *time.Time    `json:",omitempty"`
	CompletedAt *time.Time    `json:",omitempty"`
	Duration    time.Duration `json:",omitempty"`
	Status      string        `json:",omitempty"`
	Error       *failed       `json:",omitempty"`

	NumCompletedSteps, NumTotalSteps, NumCachedSteps int32

	BuildArgs   []pair       `json:",omitempty"`
	Labels      []pair       `json:",omitempty"`
	Config      []pair       `json:",omitempty"`
	Attachments []attachment `json:",omitempty"`
}

type failed struct {
	Code    int    `json:",omitempty"`
	Message string `json:",omitempty"`
	Sources string `json:",omitempty"`
}

type pair struct{ Name, Value string }

type attachment struct {
	Digest, Platform, Type string
}

func (a *app) historyInspect() spec {
	return spec{
		use: "inspect [OPTIONS] [REF]", short: "Inspect a build record",
		args: atMost(3),
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "pretty", "Format the output")
			kind := fs.String("type", "", "Type of the attachment")
			platform := fs.String("platform", "", "Platform of the attachment")
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 && args[0] == "attachment" {
					return a.showAttachment(ctx, args[1:], *kind, *platform)
				}
				if len(args) > 1 || *kind != "" || *platform != "" {
					return errors.New("history inspect takes one REF; --type and --platform are for 'history inspect attachment'")
				}
				return a.inspectRecord(ctx, append(args, "")[0], *format)
			}
		},
	}
}

func (a *app) inspectRecord(ctx context.Context, ref, format string) error {
	r, err := a.oneRecord(ctx, ref)
	if err != nil {
		return err
	}
	in := describe(r)
	if err := a.addFailure(ctx, r, &in); err != nil {
		return err
	}
	switch format {
	case "pretty":
		return in.print(a.stdout)
	case jsonFormat:
		data, err := json.MarshalIndent(in, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s\n", data)
		}
		return err
	}
	tmpl, err := templates.Parse(format)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, in); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	_, err = fmt.Fprintln(a.stdout, b.String())
	return err
}

func describe(r record) inspected {
	attrs := maps.Clone(r.FrontendAttrs)
	in := inspected{
		Name: r.name(), Ref: r.Ref, Context: attrs["context"], Dockerfile: attrs["filename"], Target: attrs["target"], Duration: r.duration(),
		Status: strings.ToLower(r.status()), NumCompletedSteps: r.NumCompletedSteps, NumTotalSteps: r.NumTotalSteps, NumCachedSteps: r.NumCachedSteps,
	}
	if p := attrs["platform"]; p != "" {
		in.Platform = strings.Split(p, ",")
	}
	started := r.CreatedAt.AsTime().Local()
	in.StartedAt = &started
	if r.CompletedAt != nil {
		ended := r.CompletedAt.AsTime().Local()
		in.CompletedAt = &ended
	}
	for _, known := range []string{"context", "filename", "target", "platform", "frontend.caps"} {
		delete(attrs, known)
	}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		switch {
		case strings.HasPrefix(k, "build-arg:"):
			in.BuildArgs = append(in.BuildArgs, pair{strings.TrimPrefix(k, "build-arg:"), attrs[k]})
		case strings.HasPrefix(k, "label:"):
			in.Labels = append(in.Labels, pair{strings.TrimPrefix(k, "label:"), attrs[k]})
		default:
			in.Config = append(in.Config, pair{k, attrs[k]})
		}
	}
	in.addAttachments("", r.Result)
	for _, p := range slices.Sorted(maps.Keys(r.Results)) {
		in.addAttachments(p, r.Results[p])
	}
	return in
}

// predicate is the annotation that says what an attestation is of.
const predicate = "in-toto.io/predicate-type"

func (in *inspected) addAttachments(platform string, res *control.BuildResultInfo) {
	if res == nil {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(res.Results)) {
		in.Attachments = append(in.Attachments, attachment{res.Results[k].Digest, platform, res.Results[k].MediaType})
	}
	for _, d := range res.Attestations {
		kind := d.Annotations[predicate]
		if kind == "" {
			kind = d.MediaType
		}
		in.Attachments = append(in.Attachments, attachment{d.Digest, platform, kind})
	}
}

// addFailure reads how a build failed, with the lines that the engine has marked.
func (a *app) addFailure(ctx context.Context, r record, in *inspected) error {
	if r.Error == nil {
		return nil
	}
	in.Error = &failed{Code: int(r.Error.Code), Message: r.Error.Message}
	if r.ExternalError == nil {
		return nil
	}
	data, err := a.blob(ctx, r.ExternalError)
	if err != nil {
		return fmt.Errorf("failed to read the error of the build: %w", err)
	}
	var st spb.Status
	if err := proto.Unmarshal(data, &st); err != nil {
		return fmt.Errorf("failed to read the error of the build: %w", err)
	}
	full := grpcerrors.FromGRPC(status.ErrorProto(&st))
	var b strings.Builder
	for _, s := range errdefs.Sources(full) {
		_ = s.Print(&b)
	}
	in.Error.Sources = b.String()
	return nil
}

// blob reads what the history keeps beside its records.
func (a *app) blob(ctx context.Context, d *control.Descriptor) ([]byte, error) {
	c, err := a.buildkit(ctx)
	if err != nil {
		return nil, err
	}
	return content.ReadBlob(ctx, proxy.NewContentStore(c.ContentClient()), ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size})
}

func (in inspected) print(w io.Writer) error {
	t := term.NewTable(w, 0, 1)
	line := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(t, "%s:\t%s\n", name, value)
		}
	}
	line("Name", in.Name)
	line("Context", in.Context)
	line("Dockerfile", in.Dockerfile)
	line("Target", in.Target)
	line("Platforms", strings.Join(in.Platform, ", "))
	_, _ = fmt.Fprintln(t)
	line("Started", in.StartedAt.Format("2006-01-02 15:04:05"))
	line("Duration", span(in.Duration))
	if in.Status != "completed" {
		line("Status", strings.ToUpper(in.Status[:1])+in.Status[1:])
	}
	if in.NumTotalSteps > 0 {
		line("Build Steps", fmt.Sprintf("%d/%d (%.0f%% cached)", in.NumCompletedSteps, in.NumTotalSteps, 100*float64(in.NumCachedSteps)/float64(in.NumTotalSteps)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, section := range []struct {
		head  string
		pairs []pair
	}{{"BUILD ARG", in.BuildArgs}, {"LABEL", in.Labels}, {"CONFIG", in.Config}} {
		if len(section.pairs) == 0 {
			continue
		}
		_, _ = fmt.Fprintln(w)
		t := term.NewTable(w, 10, 3)
		_, _ = fmt.Fprintf(t, "%s\tVALUE\n", section.head)
		for _, p := range section.pairs {
			_, _ = fmt.Fprintf(t, "%s\t%s\n", p.Name, p.Value)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(in.Attachments) > 0 {
		_, _ = fmt.Fprintln(w, "\nAttachments:")
		t := term.NewTable(w, 10, 3)
		_, _ = fmt.Fprintln(t, "DIGEST\tPLATFORM\tTYPE")
		for _, at := range in.Attachments {
			_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", at.Digest, at.Platform, at.Type)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if in.Error != nil {
		_, _ = fmt.Fprintf(w, "\n%sError: %s\n", in.Error.Sources, in.Error.Message)
	}
	return nil
}

// attachmentKind is the type that a short name stands for.
func attachmentKind(short string) string {
	long, ok := map[string]string{
		"index": ocispec.MediaTypeImageIndex, "manifest": ocispec.MediaTypeImageManifest, "provenance": "https://slsa.dev/provenance/", "sbom": "https://spdx.dev/Document",
	}[short]
	if !ok {
		return short
	}
	return long
}

// showAttachment prints what a build has left: by digest, or the first of a type.
func (a *app) showAttachment(ctx context.Context, args []string, kind, platform string) error {
	args = append(args, "", "")
	ref, wanted := args[0], args[1]
	if strings.HasPrefix(ref, "sha256:") && wanted == "" {
		ref, wanted = "", ref
	}
	if wanted == "" && kind == "" {
		return errors.New("which attachment? Name its digest, or its --type: index, manifest, provenance, sbom")
	}
	r, err := a.oneRecord(ctx, ref)
	if err != nil {
		return err
	}
	kind = attachmentKind(kind)
	for p, res := range allResults(r) {
		if platform != "" && p != "" && p != platform || res == nil {
			continue
		}
		for _, d := range slices.Concat(slices.Collect(maps.Values(res.Results)), res.Attestations) {
			if (wanted != "" && d.Digest == wanted) || (wanted == "" && (strings.HasPrefix(d.MediaType, kind) || strings.HasPrefix(d.Annotations[predicate], kind))) {
				data, err := a.blob(ctx, d)
				if err == nil {
					_, err = fmt.Fprintf(a.stdout, "%s\n", bytes.TrimRight(data, "\n"))
				}
				return err
			}
		}
	}
	return fmt.Errorf("build %s has no such attachment: see 'history inspect %s'", r.Ref, r.Ref)
}

func allResults(r record) map[string]*control.BuildResultInfo {
	all := maps.Clone(r.Results)
	if all == nil {
		all = map[string]*control.BuildResultInfo{}
	}
	all[""] = r.Result
	return all
}
