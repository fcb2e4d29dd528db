package keeper

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/kernel"
	"golang.org/x/sys/unix"
)

// Record is what a later engine needs to adopt a process: it is stored, as JSON, in the container's record.
type Record struct {
	Layout      int    // version of the layout of the keeper's descriptors
	ID          string // of the container or the exec
	KeeperPID   int
	KeeperStart uint64 // start time in clock ticks since boot, as /proc/PID/stat
	PID         int    // of the container's process, in the engine's PID namespace; 0 until it is known (Complete)
	PIDStart    uint64
	BootID      string
	Dir         string // holds the status file
	TTY         bool
	StdinOpen   bool // the keeper holds stdin's write end
	Held        int  `json:",omitempty"` // how many descriptors it holds from HeldFD on
	// Noted is when a record was written whose process had still to be made, in clock ticks since boot.
	Noted uint64 `json:",omitempty"`
}

// completePatience is far more than a keeper takes from its fork to its child.
const completePatience = 2 * time.Second

// Unmade is r as it is written while its process has still to be made.
func Unmade(r Record) Record {
	r.Noted, _ = ticks() // without it the process is known only while its keeper is there
	return r
}

// Complete fills in what the record of a process lacks that was written while its keeper had still to make it (Unmade):
// PID and PIDStart, as the status file tells them, or the keeper's children. A keeper that lives and has no child yet is
// waited for. What cannot be known stays 0: the process has ended, or never was.
func Complete(r Record) Record {
	if r.PID != 0 || SameBoot(r) != nil {
		return r
	}
	status, err := StatusOf(r)
	if err != nil {
		return r
	}
	defer status.Close()
	s, err := ReadStatus(status)
	for end := time.Now().Add(completePatience); err == nil && s.PID == 0; s, err = ReadStatus(status) {
		if s.PID = processOf(s.KeeperPID); s.PID != 0 {
			break
		}
		if alive, err := Occupied(status); err != nil || !alive || time.Now().After(end) {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	if err != nil || s.PID == 0 {
		return r
	}
	r.PID, r.KeeperPID = s.PID, s.KeeperPID
	start, err := kernel.StartTime(r.PID)
	if err == nil && !s.Exited && r.made(start, status) {
		r.PIDStart = start
	}
	r.Noted = 0
	return r
}

// processOf is the process of a keeper that does not know it, as a helper has made it: the child that leads a session,
// which helpers do not. It is 0 as long as there is none.
func processOf(keeper int) int {
	for _, pid := range Children(keeper) {
		if s, err := kernel.StatOf(pid); err == nil && s.Parent == keeper && s.Session == pid {
			return pid
		}
	}
	return 0
}

// Children lists the children of a keeper, by number: one stays its child until it collects it.
func Children(keeper int) []int {
	k := strconv.Itoa(keeper)
	b, err := os.ReadFile("/proc/" + k + "/task/" + k + "/children")
	if err != nil {
		return nil
	}
	var list []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// made says whether the process that has the PID now, and started at start, is r's: while the keeper has not collected
// that, the number is no other's. Without a keeper it is the one that was made when the record was written: records are
// completed on the disk before a number can come round.
func (r *Record) made(start uint64, status *os.File) bool {
	pidfd, err := openVerified(r.KeeperPID, r.KeeperStart, status)
	if err != nil {
		return errors.Is(err, ErrGone) && start >= r.KeeperStart && start <= r.Noted+ticksPerSecond
	}
	unix.Close(pidfd)
	s, err := ReadStatus(status)
	return err == nil && !s.Exited
}
