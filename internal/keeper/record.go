// Package keeper is the contract between the engine and the keepers of its processes.
package keeper

// Record is what a later engine needs to adopt a process: it is stored, as JSON, in the container's record.
type Record struct {
	Layout      int    // version of the layout of the keeper's descriptors
	ID          string // of the container or the exec
	KeeperPID   int
	KeeperStart uint64 // start time in clock ticks since boot, as /proc/PID/stat
	PID         int    // of the container's process, in the engine's PID namespace
	PIDStart    uint64
	BootID      string
	Dir         string // holds the status file
	TTY         bool
	StdinOpen   bool // the keeper holds stdin's write end
	Held        int  `json:",omitempty"` // how many descriptors it holds from HeldFD on
}
