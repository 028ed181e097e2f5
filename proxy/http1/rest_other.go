//go:build !linux

package http1

// restingPlace takes nobody: an idle connection has a goroutine here.
type restingPlace struct{}

func newRestingPlace() *restingPlace      { return nil }
func (*restingPlace) watch()              {}
func (*restingPlace) close()              {}
func (*restingPlace) enter(*session) bool { return false }
func (*restingPlace) leave(*session) bool { return false }
