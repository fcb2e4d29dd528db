package cgroup

// Resources are the limits of a group. A zero value or nil leaves the kernel's setting alone. A limit whose controller
// the host lacks is an error that names it (see Hierarchy.Support).
type Resources struct {
	Memory            int64  // bytes; -1 unlimited
	MemorySwap        int64  // memory plus swap in bytes; -1 unlimited; nothing is made up when only Memory is set
	MemoryReservation int64  // bytes; -1 none
	MemorySwappiness  *int64 // 0 to 100; refused on v2
	OOMKillDisable    bool   // refused on v2

	CPUShares                 int64  // 2 to 262144; 1024 is the kernel's default
	CPUPeriod, CPUQuota       int64  // microseconds; quota -1 unlimited
	CPURtPeriod, CPURtRuntime int64  // microseconds; refused on v2
	CpusetCpus, CpusetMems    string // lists as in "0-2,7"
	PidsLimit                 int64  // -1 unlimited

	BlkioWeight            uint16 // 10 to 1000
	BlkioWeightDevice      []DeviceWeight
	BlkioThrottleReadBps   []DeviceLimit
	BlkioThrottleWriteBps  []DeviceLimit
	BlkioThrottleReadIOPS  []DeviceLimit
	BlkioThrottleWriteIOPS []DeviceLimit

	// Devices are applied in order, the last that matches an access counts; what none matches is denied, unless
	// AllowAllDevices is set, which ignores them. Both count in Create only: Update refuses them.
	Devices         []DeviceRule
	AllowAllDevices bool
}

// DeviceWeight is the blkio weight (10 to 1000) of one block device.
type DeviceWeight struct {
	Major, Minor int64
	Weight       uint16
}

// DeviceLimit is a rate for one block device: bytes or operations a second.
type DeviceLimit struct {
	Major, Minor int64
	Rate         uint64
}
