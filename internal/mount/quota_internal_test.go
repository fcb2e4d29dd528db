package mount

import (
	"errors"
	"testing"
)

// quotas is a filesystem's, without one: projects by their number of files and limit.
type quotas struct {
	projects map[uint32]uint64
	limits   map[uint32]uint64
	steps    int // until the claimant is killed; negative: never
}

var errKilled = errors.New("killed")

func (q *quotas) step() error {
	if q.steps == 0 {
		return errKilled
	}
	q.steps--
	return nil
}

func (q *quotas) files(id uint32) (uint64, error) { return q.projects[id], q.step() }

func (q *quotas) join(id uint32) error {
	if err := q.step(); err != nil {
		return err
	}
	q.projects[id]++
	return nil
}

func (q *quotas) limit(id uint32, bytes uint64) error {
	if err := q.step(); err != nil {
		return err
	}
	q.limits[id] = bytes
	return nil
}

// Whenever a claimant is killed, its project is free again as soon as its directory is gone, and is nobody else's before.
func TestKilledClaimLeavesNoProject(t *testing.T) {
	for steps := range 4 {
		q := &quotas{projects: map[uint32]uint64{7: 1}, limits: map[uint32]uint64{7: 100}, steps: steps + 1} // 7 is asked for, and not free
		if _, err := claim(q, 7, 10, 200); err == nil && steps < 3 {
			t.Fatalf("not killed after %d steps", steps)
		}
		q.steps = -1
		if q.projects[8] > 0 {
			if id, err := claim(q, 7, 10, 300); id != 9 || err != nil {
				t.Errorf("%d steps: project %d, %v: that of a directory which is there yet", steps, id, err)
			}
			q.projects[8], q.projects[9] = 0, 0 // swept
		}
		if id, err := claim(q, 7, 10, 400); id != 8 || err != nil || q.limits[8] != 400 || q.limits[7] != 100 {
			t.Errorf("%d steps: project %d, %v, limits %v", steps, id, err, q.limits)
		}
	}
	full := &quotas{projects: map[uint32]uint64{1: 1, 2: 1}, steps: -1}
	if _, err := claim(full, 1, 2, 1); err == nil {
		t.Error("a project was found where there is none")
	}
}
