package canonical

import (
	"github.com/compose-spec/compose-go/v2/types"
)

// service has the attributes of a service in the order in which docker compose v2 writes
// them. The names of the fields are those of [types.ServiceConfig].
type service struct {
	Profiles          []string                               `yaml:"profiles,omitempty" json:"profiles,omitempty"`
	Annotations       types.Mapping                          `yaml:"annotations,omitempty" json:"annotations,omitempty"`
	Attach            *bool                                  `yaml:"attach,omitempty" json:"attach,omitempty"`
	Build             *types.BuildConfig                     `yaml:"build,omitempty" json:"build,omitempty"`
	Develop           *types.DevelopConfig                   `yaml:"develop,omitempty" json:"develop,omitempty"`
	BlkioConfig       *types.BlkioConfig                     `yaml:"blkio_config,omitempty" json:"blkio_config,omitempty"`
	CapAdd            []string                               `yaml:"cap_add,omitempty" json:"cap_add,omitempty"`
	CapDrop           []string                               `yaml:"cap_drop,omitempty" json:"cap_drop,omitempty"`
	CgroupParent      string                                 `yaml:"cgroup_parent,omitempty" json:"cgroup_parent,omitempty"`
	Cgroup            string                                 `yaml:"cgroup,omitempty" json:"cgroup,omitempty"`
	CPUCount          int64                                  `yaml:"cpu_count,omitempty" json:"cpu_count,omitempty"`
	CPUPercent        float32                                `yaml:"cpu_percent,omitempty" json:"cpu_percent,omitempty"`
	CPUPeriod         int64                                  `yaml:"cpu_period,omitempty" json:"cpu_period,omitempty"`
	CPUQuota          int64                                  `yaml:"cpu_quota,omitempty" json:"cpu_quota,omitempty"`
	CPURTPeriod       int64                                  `yaml:"cpu_rt_period,omitempty" json:"cpu_rt_period,omitempty"`
	CPURTRuntime      int64                                  `yaml:"cpu_rt_runtime,omitempty" json:"cpu_rt_runtime,omitempty"`
	CPUS              float32                                `yaml:"cpus,omitempty" json:"cpus,omitempty"`
	CPUSet            string                                 `yaml:"cpuset,omitempty" json:"cpuset,omitempty"`
	CPUShares         int64                                  `yaml:"cpu_shares,omitempty" json:"cpu_shares,omitempty"`
	Command           types.ShellCommand                     `yaml:"command,omitempty" json:"command"`
	Configs           []types.ServiceConfigObjConfig         `yaml:"configs,omitempty" json:"configs,omitempty"`
	ContainerName     string                                 `yaml:"container_name,omitempty" json:"container_name,omitempty"`
	CredentialSpec    *types.CredentialSpecConfig            `yaml:"credential_spec,omitempty" json:"credential_spec,omitempty"`
	DependsOn         types.DependsOnConfig                  `yaml:"depends_on,omitempty" json:"depends_on,omitempty"`
	Deploy            *types.DeployConfig                    `yaml:"deploy,omitempty" json:"deploy,omitempty"`
	DeviceCgroupRules []string                               `yaml:"device_cgroup_rules,omitempty" json:"device_cgroup_rules,omitempty"`
	Devices           []types.DeviceMapping                  `yaml:"devices,omitempty" json:"devices,omitempty"`
	DNS               types.StringList                       `yaml:"dns,omitempty" json:"dns,omitempty"`
	DNSOpts           []string                               `yaml:"dns_opt,omitempty" json:"dns_opt,omitempty"`
	DNSSearch         types.StringList                       `yaml:"dns_search,omitempty" json:"dns_search,omitempty"`
	Dockerfile        string                                 `yaml:"dockerfile,omitempty" json:"dockerfile,omitempty"`
	DomainName        string                                 `yaml:"domainname,omitempty" json:"domainname,omitempty"`
	Entrypoint        types.ShellCommand                     `yaml:"entrypoint,omitempty" json:"entrypoint"`
	Provider          *types.ServiceProviderConfig           `yaml:"provider,omitempty" json:"provider,omitempty"`
	Environment       types.MappingWithEquals                `yaml:"environment,omitempty" json:"environment,omitempty"`
	EnvFiles          []types.EnvFile                        `yaml:"env_file,omitempty" json:"env_file,omitempty"`
	Expose            types.StringOrNumberList               `yaml:"expose,omitempty" json:"expose,omitempty"`
	Extends           *types.ExtendsConfig                   `yaml:"extends,omitempty" json:"extends,omitempty"`
	ExternalLinks     []string                               `yaml:"external_links,omitempty" json:"external_links,omitempty"`
	ExtraHosts        types.HostsList                        `yaml:"extra_hosts,omitempty" json:"extra_hosts,omitempty"`
	GroupAdd          []string                               `yaml:"group_add,omitempty" json:"group_add,omitempty"`
	Gpus              []types.DeviceRequest                  `yaml:"gpus,omitempty" json:"gpus,omitempty"`
	Hostname          string                                 `yaml:"hostname,omitempty" json:"hostname,omitempty"`
	HealthCheck       *types.HealthCheckConfig               `yaml:"healthcheck,omitempty" json:"healthcheck,omitempty"`
	Image             string                                 `yaml:"image,omitempty" json:"image,omitempty"`
	Init              *bool                                  `yaml:"init,omitempty" json:"init,omitempty"`
	Ipc               string                                 `yaml:"ipc,omitempty" json:"ipc,omitempty"`
	Isolation         string                                 `yaml:"isolation,omitempty" json:"isolation,omitempty"`
	Labels            types.Labels                           `yaml:"labels,omitempty" json:"labels,omitempty"`
	LabelFiles        []string                               `yaml:"label_file,omitempty" json:"label_file,omitempty"`
	Links             []string                               `yaml:"links,omitempty" json:"links,omitempty"`
	Logging           *types.LoggingConfig                   `yaml:"logging,omitempty" json:"logging,omitempty"`
	LogDriver         string                                 `yaml:"log_driver,omitempty" json:"log_driver,omitempty"`
	LogOpt            map[string]string                      `yaml:"log_opt,omitempty" json:"log_opt,omitempty"`
	MemLimit          types.UnitBytes                        `yaml:"mem_limit,omitempty" json:"mem_limit,omitempty"`
	MemReservation    types.UnitBytes                        `yaml:"mem_reservation,omitempty" json:"mem_reservation,omitempty"`
	MemSwapLimit      types.UnitBytes                        `yaml:"memswap_limit,omitempty" json:"memswap_limit,omitempty"`
	MemSwappiness     types.UnitBytes                        `yaml:"mem_swappiness,omitempty" json:"mem_swappiness,omitempty"`
	MacAddress        string                                 `yaml:"mac_address,omitempty" json:"mac_address,omitempty"`
	Models            map[string]*types.ServiceModelConfig   `yaml:"models,omitempty" json:"models,omitempty"`
	Net               string                                 `yaml:"net,omitempty" json:"net,omitempty"`
	NetworkMode       string                                 `yaml:"network_mode,omitempty" json:"network_mode,omitempty"`
	Networks          map[string]*types.ServiceNetworkConfig `yaml:"networks,omitempty" json:"networks,omitempty"`
	OomKillDisable    bool                                   `yaml:"oom_kill_disable,omitempty" json:"oom_kill_disable,omitempty"`
	OomScoreAdj       int64                                  `yaml:"oom_score_adj,omitempty" json:"oom_score_adj,omitempty"`
	Pid               string                                 `yaml:"pid,omitempty" json:"pid,omitempty"`
	PidsLimit         int64                                  `yaml:"pids_limit,omitempty" json:"pids_limit,omitempty"`
	Platform          string                                 `yaml:"platform,omitempty" json:"platform,omitempty"`
	Ports             []types.ServicePortConfig              `yaml:"ports,omitempty" json:"ports,omitempty"`
	Privileged        bool                                   `yaml:"privileged,omitempty" json:"privileged,omitempty"`
	PullPolicy        string                                 `yaml:"pull_policy,omitempty" json:"pull_policy,omitempty"`
	ReadOnly          bool                                   `yaml:"read_only,omitempty" json:"read_only,omitempty"`
	Restart           string                                 `yaml:"restart,omitempty" json:"restart,omitempty"`
	Runtime           string                                 `yaml:"runtime,omitempty" json:"runtime,omitempty"`
	Scale             *int                                   `yaml:"scale,omitempty" json:"scale,omitempty"`
	Secrets           []types.ServiceSecretConfig            `yaml:"secrets,omitempty" json:"secrets,omitempty"`
	SecurityOpt       []string                               `yaml:"security_opt,omitempty" json:"security_opt,omitempty"`
	ShmSize           types.UnitBytes                        `yaml:"shm_size,omitempty" json:"shm_size,omitempty"`
	StdinOpen         bool                                   `yaml:"stdin_open,omitempty" json:"stdin_open,omitempty"`
	StopGracePeriod   *types.Duration                        `yaml:"stop_grace_period,omitempty" json:"stop_grace_period,omitempty"`
	StopSignal        string                                 `yaml:"stop_signal,omitempty" json:"stop_signal,omitempty"`
	StorageOpt        map[string]string                      `yaml:"storage_opt,omitempty" json:"storage_opt,omitempty"`
	Sysctls           types.Mapping                          `yaml:"sysctls,omitempty" json:"sysctls,omitempty"`
	Tmpfs             types.StringList                       `yaml:"tmpfs,omitempty" json:"tmpfs,omitempty"`
	Tty               bool                                   `yaml:"tty,omitempty" json:"tty,omitempty"`
	Ulimits           map[string]*types.UlimitsConfig        `yaml:"ulimits,omitempty" json:"ulimits,omitempty"`
	UseAPISocket      bool                                   `yaml:"use_api_socket,omitempty" json:"use_api_socket,omitempty"`
	User              string                                 `yaml:"user,omitempty" json:"user,omitempty"`
	UserNSMode        string                                 `yaml:"userns_mode,omitempty" json:"userns_mode,omitempty"`
	Uts               string                                 `yaml:"uts,omitempty" json:"uts,omitempty"`
	VolumeDriver      string                                 `yaml:"volume_driver,omitempty" json:"volume_driver,omitempty"`
	Volumes           []volume                               `yaml:"volumes,omitempty" json:"volumes,omitempty"`
	VolumesFrom       []string                               `yaml:"volumes_from,omitempty" json:"volumes_from,omitempty"`
	WorkingDir        string                                 `yaml:"working_dir,omitempty" json:"working_dir,omitempty"`
	PostStart         []types.ServiceHook                    `yaml:"post_start,omitempty" json:"post_start,omitempty"`
	PreStop           []types.ServiceHook                    `yaml:"pre_stop,omitempty" json:"pre_stop,omitempty"`

	// What docker compose v2 does not know stands after all that it does.
	PullRefreshAfter string               `yaml:"pull_refresh_after,omitempty" json:"pull_refresh_after,omitempty"`
	Umask            *uint32              `yaml:"umask,omitempty" json:"umask,omitempty"`
	PreStart         []types.PreStartHook `yaml:"pre_start,omitempty" json:"pre_start,omitempty"`

	Extensions types.Extensions `yaml:"#extensions,inline,omitempty" json:"-"`
}

// volume is an entry of a service's volumes.
type volume struct {
	Type        string                     `yaml:"type,omitempty" json:"type,omitempty"`
	Source      string                     `yaml:"source,omitempty" json:"source,omitempty"`
	Target      string                     `yaml:"target,omitempty" json:"target,omitempty"`
	ReadOnly    bool                       `yaml:"read_only,omitempty" json:"read_only,omitempty"`
	Consistency string                     `yaml:"consistency,omitempty" json:"consistency,omitempty"`
	Bind        *bind                      `yaml:"bind,omitempty" json:"bind,omitempty"`
	Volume      *types.ServiceVolumeVolume `yaml:"volume,omitempty" json:"volume,omitempty"`
	Tmpfs       *types.ServiceVolumeTmpfs  `yaml:"tmpfs,omitempty" json:"tmpfs,omitempty"`
	Image       *types.ServiceVolumeImage  `yaml:"image,omitempty" json:"image,omitempty"`

	Extensions types.Extensions `yaml:"#extensions,inline,omitempty" json:"-"`
}

// bind are the options of a bind mount. docker compose v2 writes create_host_path where it
// is true, later versions where it is false.
type bind struct {
	SELinux        string `yaml:"selinux,omitempty" json:"selinux,omitempty"`
	Propagation    string `yaml:"propagation,omitempty" json:"propagation,omitempty"`
	CreateHostPath bool   `yaml:"create_host_path,omitempty" json:"create_host_path,omitempty"`
	Recursive      string `yaml:"recursive,omitempty" json:"recursive,omitempty"`

	Extensions types.Extensions `yaml:"#extensions,inline,omitempty" json:"-"`
}

// serviceOf puts the attributes of a service in order. It names each, as looking them up by reflection was a tenth of what
// the client does for an `up`.
func serviceOf(s types.ServiceConfig) service {
	ordered := service{
		Profiles: s.Profiles, Annotations: s.Annotations, Attach: s.Attach, Build: s.Build, Develop: s.Develop,
		BlkioConfig: s.BlkioConfig, CapAdd: s.CapAdd, CapDrop: s.CapDrop, CgroupParent: s.CgroupParent,
		Cgroup: s.Cgroup, CPUCount: s.CPUCount, CPUPercent: s.CPUPercent, CPUPeriod: s.CPUPeriod,
		CPUQuota: s.CPUQuota, CPURTPeriod: s.CPURTPeriod, CPURTRuntime: s.CPURTRuntime, CPUS: s.CPUS,
		CPUSet: s.CPUSet, CPUShares: s.CPUShares, Command: s.Command, Configs: s.Configs,
		ContainerName: s.ContainerName, CredentialSpec: s.CredentialSpec, DependsOn: s.DependsOn,
		Deploy: s.Deploy, DeviceCgroupRules: s.DeviceCgroupRules, Devices: s.Devices, DNS: s.DNS,
		DNSOpts: s.DNSOpts, DNSSearch: s.DNSSearch, Dockerfile: s.Dockerfile, DomainName: s.DomainName,
		Entrypoint: s.Entrypoint, Provider: s.Provider, Environment: s.Environment, EnvFiles: s.EnvFiles,
		Expose: s.Expose, Extends: s.Extends, ExternalLinks: s.ExternalLinks, ExtraHosts: s.ExtraHosts,
		GroupAdd: s.GroupAdd, Gpus: s.Gpus, Hostname: s.Hostname, HealthCheck: s.HealthCheck, Image: s.Image,
		Init: s.Init, Ipc: s.Ipc, Isolation: s.Isolation, Labels: s.Labels, LabelFiles: s.LabelFiles,
		Links: s.Links, Logging: s.Logging, LogDriver: s.LogDriver, LogOpt: s.LogOpt, MemLimit: s.MemLimit,
		MemReservation: s.MemReservation, MemSwapLimit: s.MemSwapLimit, MemSwappiness: s.MemSwappiness,
		MacAddress: s.MacAddress, Models: s.Models, Net: s.Net, NetworkMode: s.NetworkMode,
		Networks: s.Networks, OomKillDisable: s.OomKillDisable, OomScoreAdj: s.OomScoreAdj, Pid: s.Pid,
		PidsLimit: s.PidsLimit, Platform: s.Platform, Ports: s.Ports, Privileged: s.Privileged,
		PullPolicy: s.PullPolicy, ReadOnly: s.ReadOnly, Restart: s.Restart, Runtime: s.Runtime, Scale: s.Scale,
		Secrets: s.Secrets, SecurityOpt: s.SecurityOpt, ShmSize: s.ShmSize, StdinOpen: s.StdinOpen,
		StopGracePeriod: s.StopGracePeriod, StopSignal: s.StopSignal, StorageOpt: s.StorageOpt,
		Sysctls: s.Sysctls, Tmpfs: s.Tmpfs, Tty: s.Tty, Ulimits: s.Ulimits, UseAPISocket: s.UseAPISocket,
		User: s.User, UserNSMode: s.UserNSMode, Uts: s.Uts, VolumeDriver: s.VolumeDriver,
		VolumesFrom: s.VolumesFrom, WorkingDir: s.WorkingDir, PostStart: s.PostStart, PreStop: s.PreStop,
		PullRefreshAfter: s.PullRefreshAfter, Umask: s.Umask, PreStart: s.PreStart, Extensions: s.Extensions,
	}
	for _, v := range s.Volumes {
		ordered.Volumes = append(ordered.Volumes, volumeOf(v))
	}
	return ordered
}

func volumeOf(v types.ServiceVolumeConfig) volume {
	ordered := volume{
		Type: v.Type, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly, Consistency: v.Consistency,
		Volume: v.Volume, Tmpfs: v.Tmpfs, Image: v.Image, Extensions: v.Extensions,
	}
	if b := v.Bind; b != nil {
		ordered.Bind = &bind{
			SELinux: b.SELinux, Propagation: b.Propagation, Recursive: b.Recursive, Extensions: b.Extensions,
			CreateHostPath: bool(b.CreateHostPath) && v.Type != types.VolumeTypeVolume, // a volume's label for SELinux stands here, too
		}
	}
	return ordered
}
