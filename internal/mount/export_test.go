package mount

import "time"

// SetSettling changes how old changes must be for times to tell of later ones.
func (m *Mirror) SetSettling(d time.Duration) { m.settling = d }
