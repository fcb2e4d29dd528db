package cgroup

// EndClaim is the end of the engine that has claimed a directory.
func (h *Hierarchy) EndClaim() { h.lock.Close() }
