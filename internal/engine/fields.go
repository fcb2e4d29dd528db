package engine

import (
	"reflect"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// support says what this engine does with a field of a create request.
type support int

const (
	// acted fields change the container, or are refused value by value where
	// they are read.
	acted support = iota
	// neutral fields need no action: their effect is there, or they carry
	// information for clients only.
	neutral
	// refused fields are not supported: any value but the zero value (or an
	// empty list or map) is an error that names the field.
	refused
)

// configFields is the support of every field of container.Config.
var configFields = map[string]support{
	"Hostname": acted, "Domainname": acted, "User": acted, "ExposedPorts": acted, "Tty": acted, "OpenStdin": acted,
	"StdinOnce": acted, "Env": acted, "Cmd": acted, "Healthcheck": acted, "Image": acted, "Volumes": acted,
	"WorkingDir": acted, "Entrypoint": acted, "NetworkDisabled": acted, "Labels": acted, "StopSignal": acted,
	"StopTimeout": acted,

	// The attach flags tell clients what the creator attached to.
	"AttachStdin": neutral, "AttachStdout": neutral, "AttachStderr": neutral,
	// Windows command lines; and what only builds read, and health checks (Shell).
	"ArgsEscaped": neutral, "OnBuild": neutral, "Shell": neutral,
}

// hostConfigFields is the support of every field of container.HostConfig,
// those of the embedded Resources included.
var hostConfigFields = map[string]support{
	"Binds": acted, "LogConfig": acted, "NetworkMode": acted, "PortBindings": acted, "RestartPolicy": acted,
	"AutoRemove": acted, "VolumeDriver": acted, "VolumesFrom": acted, "ConsoleSize": acted, "Annotations": acted,
	"CapAdd": acted, "CapDrop": acted, "CgroupnsMode": acted, "DNS": acted, "DNSOptions": acted, "DNSSearch": acted,
	"ExtraHosts": acted, "Links": acted, "GroupAdd": acted, "IpcMode": acted, "OomScoreAdj": acted, "PidMode": acted,
	"Privileged": acted, "PublishAllPorts": acted, "ReadonlyRootfs": acted, "SecurityOpt": acted, "Tmpfs": acted,
	"UTSMode": acted, "UsernsMode": acted, "ShmSize": acted, "Sysctls": acted, "Runtime": acted, "Umask": acted,
	"Isolation": acted, "Mounts": acted, "MaskedPaths": acted, "ReadonlyPaths": acted, "Init": acted,

	"CPUShares": acted, "Memory": acted, "NanoCPUs": acted, "CgroupParent": acted, "BlkioWeight": acted,
	"BlkioWeightDevice": acted, "BlkioDeviceReadBps": acted, "BlkioDeviceWriteBps": acted,
	"BlkioDeviceReadIOps": acted, "BlkioDeviceWriteIOps": acted, "CPUPeriod": acted, "CPUQuota": acted,
	"CPURealtimePeriod": acted, "CPURealtimeRuntime": acted, "CpusetCpus": acted, "CpusetMems": acted,
	"Devices": acted, "DeviceCgroupRules": acted, "MemoryReservation": acted, "MemorySwap": acted,
	"DeviceRequests": acted, "StorageOpt": acted, "MemorySwappiness": acted, "OomKillDisable": acted, "PidsLimit": acted, "Ulimits": acted,

	"ContainerIDFile": neutral, // the client writes it

	"Cgroup":   refused,
	"CPUCount": refused, "CPUPercent": refused, "IOMaximumIOps": refused, "IOMaximumBandwidth": refused,
}

// endpointFields is the support of every field of network.EndpointSettings.
var endpointFields = map[string]support{
	"IPAMConfig": acted, "Aliases": acted, "MacAddress": acted, "Links": acted, "DriverOpts": acted, "GwPriority": acted,
	// What inspect reported: clients send it back when they recreate.
	"NetworkID": neutral, "EndpointID": neutral, "Gateway": neutral, "IPAddress": neutral, "IPPrefixLen": neutral,
	"IPv6Gateway": neutral, "GlobalIPv6Address": neutral, "GlobalIPv6PrefixLen": neutral, "DNSNames": neutral,
}

// refuseUnsupported returns an error that names the first refused field set in
// any of the three parts of a request.
func refuseUnsupported(c *container.Config, h *container.HostConfig, endpoints map[string]*network.EndpointSettings) error {
	if err := refuseFields("Config", reflect.ValueOf(c).Elem(), configFields); err != nil {
		return err
	}
	if err := refuseFields("HostConfig", reflect.ValueOf(h).Elem(), hostConfigFields); err != nil {
		return err
	}
	for _, e := range endpoints {
		if e == nil {
			continue
		}
		if err := refuseFields("EndpointsConfig", reflect.ValueOf(e).Elem(), endpointFields); err != nil {
			return err
		}
	}
	return nil
}

func refuseFields(part string, v reflect.Value, table map[string]support) error {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if err := refuseFields(part, v.Field(i), table); err != nil {
				return err
			}
			continue
		}
		if table[f.Name] == refused && !empty(v.Field(i)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				name = f.Name
			}
			return failure.NotImplemented("%s.%s is not supported by this engine: leave it out", part, name)
		}
	}
	return nil
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}
