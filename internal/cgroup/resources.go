package cgroup

// Resources are the limits of a group. A zero value or nil leaves the kernel's setting alone.
type Resources struct {
	Memory            int64  // bytes; -1 unlimited
	MemorySwap        int64  // memory plus swap in bytes; -1 unlimited
	MemoryReservation int64  // bytes; -1 unlimited
	MemorySwappiness  *int64 // 0 to 100; not on v2
	OOMKillDisable    bool   // not on v2

	CPUShares                 int64  // 2 to 262144, 1024 is the default
	CPUPeriod, CPUQuota       int64  // microseconds; quota -1 unlimited
	CPURtPeriod, CPURtRuntime int64  // microseconds; not on v2
	CpusetCpus, CpusetMems    string // lists as in "0-2,7"
	PidsLimit                 int64  // -1 unlimited

	BlkioWeight            uint16 // 10 to 1000
	BlkioWeightDevice      []DeviceWeight
	BlkioThrottleReadBps   []DeviceLimit
	BlkioThrottleWriteBps  []DeviceLimit
	BlkioThrottleReadIOPS  []DeviceLimit
	BlkioThrottleWriteIOPS []DeviceLimit
	Hugetlb                []HugetlbLimit

	Devices         []DeviceRule // in order, the last that matches counts; with AllowAllDevices false everything else is denied
	AllowAllDevices bool
}

// DeviceWeight is the blkio weight of one block device.
type DeviceWeight struct {
	Major, Minor int64
	Weight       uint16
}

// DeviceLimit is a rate for one block device: bytes or operations a second.
type DeviceLimit struct {
	Major, Minor int64
	Rate         uint64
}

// HugetlbLimit limits the huge pages of one size ("2MB", "1GB") to bytes.
type HugetlbLimit struct {
	PageSize string
	Limit    uint64
}

// DeviceRule allows or denies access to devices.
type DeviceRule struct {
	Allow        bool
	Type         rune   // 'c', 'b' or 'a' for both
	Major, Minor int64  // -1 any
	Access       string // some of "rwm"
}

// DefaultDeviceRules are the devices that every container may use.
func DefaultDeviceRules() []DeviceRule { return nil }
