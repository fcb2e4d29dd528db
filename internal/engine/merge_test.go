package engine

import (
	"fmt"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An image that names a signal that nobody knows is stopped as one that names none.
func TestStopSignalsOfImages(t *testing.T) {
	for of, want := range map[string]string{"": "", "SIGQUIT": "SIGQUIT", "15": "15", "SIGNONE": "", "0": ""} {
		c := &container.Config{}
		if err := mergeImageConfig(c, &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{StopSignal: of}}); err != nil || c.StopSignal != want {
			t.Errorf("%q: %q, %v", of, c.StopSignal, err)
		}
	}
}

// Images of other builders have ranges among what they expose, and any image may have anything there.
func TestPortsThatImagesExpose(t *testing.T) {
	for exposed, want := range map[string][]string{
		"80": {"80/tcp"}, "53/udp": {"53/udp"}, "33060-33061/tcp": {"33060/tcp", "33061/tcp"}, "90-91/udp": {"90/udp", "91/udp"},
		"x": nil, "": nil, "2-1": nil, "1-65536": nil, "1-2-3": nil,
	} {
		c := &container.Config{ExposedPorts: network.PortSet{network.MustParsePort("1"): {}}}
		image := &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{ExposedPorts: map[string]struct{}{exposed: {}}}}
		err := mergeImageConfig(c, image)
		if (err == nil) != (want != nil) {
			t.Errorf("%q: %v", exposed, err)
		}
		for _, port := range want {
			if _, ok := c.ExposedPorts[network.MustParsePort(port)]; !ok {
				t.Errorf("%q: %v lacks %s", exposed, c.ExposedPorts, port)
			}
		}
		if err == nil && len(c.ExposedPorts) != len(want)+1 {
			t.Errorf("%q: %v", exposed, c.ExposedPorts)
		}
	}
}

// A few kilobytes of ranges do not keep the engine busy for minutes.
func TestRangesThatStandForTooMuch(t *testing.T) {
	entries := map[string]struct{}{}
	for end := 65000; end < 65010; end++ {
		entries[fmt.Sprintf("1-%d/tcp", end)] = struct{}{}
	}
	if _, err := ExposedPorts(entries); err == nil || !strings.Contains(err.Error(), "262144") {
		t.Errorf("%d ranges: %v", len(entries), err)
	}
	all := map[string]struct{}{"1-65535/tcp": {}, "1-65535/udp": {}, "1-65535/sctp": {}, "80": {}}
	if ports, err := ExposedPorts(all); err != nil || len(ports) != 3*65535 {
		t.Errorf("%d ports, %v", len(ports), err)
	}
}
