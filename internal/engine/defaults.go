package engine

import (
	"cmp"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const (
	runtimeName      = "cleat"
	defaultLogDriver = "json-file"
)

// fill completes a host config, as inspect is to show it. cgroupV2 decides what
// Docker's defaults depend on.
func (d *ContainerDefaults) fill(h *container.HostConfig, cgroupV2 bool) error {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	d.logConfig(&h.LogConfig)
	if h.ShmSize == 0 {
		h.ShmSize = cmp.Or(d.ShmSize, defaultShmSize)
	}
	if h.IpcMode == "" {
		h.IpcMode = cmp.Or(d.IPCMode, container.IPCModePrivate)
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = d.CgroupNSMode
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = container.CgroupnsModeHost
		if cgroupV2 {
			h.CgroupnsMode = container.CgroupnsModePrivate
		}
	}
	if h.Runtime == "" {
		h.Runtime = runtimeName
	}
	if err := fillPaths(h); err != nil {
		return err
	}
	r := &h.Resources
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = withSwap(r.Memory)
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 {
		r.MemorySwappiness = nil
	}
	if r.PidsLimit != nil && *r.PidsLimit <= 0 {
		r.PidsLimit = nil
	}
	if cgroupV2 {
		if r.OomKillDisable != nil && !*r.OomKillDisable {
			r.OomKillDisable = nil // one that is asked for is dropped with a warning
		}
	} else if r.OomKillDisable == nil {
		r.OomKillDisable = new(bool)
	}
	if r.CPUShares > 0 {
		r.CPUShares = min(max(r.CPUShares, 2), 262144)
	}
	return nil
}

func fillPaths(h *container.HostConfig) error {
	unconfined := false
	for _, o := range h.SecurityOpt {
		unconfined = unconfined || o == "systempaths=unconfined" || o == "systempaths:unconfined"
	}
	if unconfined && (len(h.MaskedPaths) > 0 || len(h.ReadonlyPaths) > 0) {
		return failure.Invalid("--security-opt systempaths=unconfined conflicts with MaskedPaths and ReadonlyPaths")
	}
	if unconfined || h.Privileged {
		// Explicit lists are honoured even when privileged.
		if h.MaskedPaths == nil {
			h.MaskedPaths = []string{}
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = []string{}
		}
		return nil
	}
	if h.MaskedPaths == nil {
		h.MaskedPaths = runtime.DefaultMaskedPaths()
	}
	if h.ReadonlyPaths == nil {
		h.ReadonlyPaths = runtime.DefaultReadonlyPaths()
	}
	return nil
}
