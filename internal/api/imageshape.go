package api

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
)

// imagesFor gives an image list the shape of an API version.
func imagesFor(images []imagetypes.Summary, asked version) any {
	for i := range images {
		img := &images[i]
		img.RepoTags = list(img.RepoTags)
		img.RepoDigests = list(img.RepoDigests)
		img.Labels = object(img.Labels)
		if asked.below(43) && len(img.RepoTags) == 0 && len(img.RepoDigests) == 0 {
			img.RepoTags = []string{"<none>:<none>"}
			img.RepoDigests = []string{"<none>@<none>"}
		}
		if asked.below(48) {
			img.Descriptor = nil
		}
		if asked.below(51) {
			img.Containers = -1
		}
	}
	if asked.from(44) {
		return list(images)
	}
	return newSummariesBelow144(images)
}

func newSummariesBelow144(images []imagetypes.Summary) []summaryBelow144 {
	out := make([]summaryBelow144, len(images))
	for i := range images {
		out[i] = summaryBelow144{Summary: &images[i], VirtualSize: images[i].Size}
	}
	return out
}

type summaryBelow144 struct {
	*imagetypes.Summary
	VirtualSize int64
}

// graphDriver is what images were said to be kept by before 1.52, which is where their
// layers are: scripts ask for its name.
const graphDriver = "overlay2"

// imageInspectFor gives the answer of image inspect the shape of an API version.
func imageInspectFor(in *imagetypes.InspectResponse, asked version) any {
	img := *in
	img.RepoTags = list(img.RepoTags)
	img.RepoDigests = list(img.RepoDigests)
	if img.Config == nil {
		img.Config = &dockerspec.DockerOCIImageConfig{}
	}
	if asked.below(48) {
		img.Descriptor = nil
	}
	if asked.below(53) {
		img.Identity = nil
	}
	if asked.from(52) {
		return &img
	}
	if img.GraphDriver == nil {
		img.GraphDriver = &storage.DriverData{Name: graphDriver}
	}
	out := imageBelow152{
		InspectResponse: &img,
		Comment:         img.Comment,
		Author:          img.Author,
		Config:          newImageConfigBelow152(img.Config),
	}
	if asked.from(50) {
		return &out
	}
	out150 := imageBelow150{imageBelow152: out, Config: imageConfigBelow150{imageConfigBelow152: out.Config}}
	if asked.from(45) {
		return &out150
	}
	out145 := imageBelow145{imageBelow150: out150, ContainerConfig: &out150.Config}
	if asked.from(44) {
		return &out145
	}
	if img.Created == "" {
		img.Created = time.Time{}.Format(time.RFC3339Nano)
	}
	return &imageBelow144{imageBelow145: out145, VirtualSize: img.Size}
}

// imageBelow152 has what was sent even if empty.
type imageBelow152 struct {
	*imagetypes.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	Config        imageConfigBelow152
}

// imageConfigBelow152 is an image's configuration with all its fields there.
type imageConfigBelow152 struct {
	*dockerspec.DockerOCIImageConfig
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	Volumes    map[string]struct{}
	WorkingDir string
	Labels     map[string]string
	OnBuild    []string
}

func newImageConfigBelow152(c *dockerspec.DockerOCIImageConfig) imageConfigBelow152 {
	return imageConfigBelow152{
		DockerOCIImageConfig: c,
		User:                 c.User,
		Env:                  c.Env,
		Entrypoint:           c.Entrypoint,
		Cmd:                  c.Cmd,
		Volumes:              c.Volumes,
		WorkingDir:           c.WorkingDir,
		Labels:               c.Labels,
		OnBuild:              c.OnBuild,
	}
}

// imageBelow150 has, in its configuration, the fields that only containers have.
type imageBelow150 struct {
	imageBelow152
	Config imageConfigBelow150
}

// imageConfigBelow150 has a container's fields, never set in an image.
type imageConfigBelow150 struct {
	imageConfigBelow152
	Hostname     string
	Domainname   string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Image        string
}

// imageBelow145 names the container that an image was committed from, which is not known
// here. Its configuration was the image's but for the command: docker-compose 1 looks
// there for the volumes that it takes over.
type imageBelow145 struct {
	imageBelow150
	Container       string
	ContainerConfig *imageConfigBelow150
}

// imageBelow144 has the size a second time.
type imageBelow144 struct {
	imageBelow145
	VirtualSize int64
}
