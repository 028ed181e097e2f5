package state

import (
	"errors"
	"fmt"
)

// Version is the newest version of commands and snapshots that this binary
// reads. Each is written in the lowest version that can say what it says, so that
// older binaries read whatever they can understand.
//
// A new operation, a new field, and a new value of an old field all need a new
// version, because a binary that does not know them would stop or, worse, make
// another view of the same log. Version rises by one for all that is released
// together; the table of settings and the version methods below say what needs it.
const Version = 4

// ErrTooNew: the command or the snapshot has a version above Version. A newer
// binary wrote it.
var ErrTooNew = errors.New("written by a newer binary")

// checkVersion refuses what this binary cannot read.
func checkVersion(what string, version int) error {
	if version < 1 {
		return fmt.Errorf("cannot read %s: it has no version", what)
	}
	if version > Version {
		return fmt.Errorf("cannot read %s of version %d, %w: this one understands up to version %d; upgrade it", what, version, ErrTooNew, Version)
	}
	return nil
}

// CommandVersion is the version of an encoded command, which may be above
// Version. The error is for a command that this binary should understand by its
// version and does not: it must not enter the log.
func CommandVersion(data []byte) (int, error) {
	_, version, err := decode(data)
	if errors.Is(err, ErrTooNew) {
		err = nil
	}
	return version, err
}

// Version is that of the newest command that went into the machine, 1 at least.
// It never falls: a binary that understands less cannot follow the log any more.
func (m *Machine) Version() int { return m.version }

// version is the lowest version of a snapshot that can say what c says.
func (c *content) version() int {
	version := 1
	for _, p := range c.Pools {
		version = max(version, p.version())
	}
	return version
}

// version is the lowest in which a pool can be written.
func (p *Pool) version() int {
	return max(p.Settings.version(), backendsVersion(p.Backends))
}

func backendsVersion(backends []*Backend) int {
	version := 1
	for _, b := range backends {
		if b != nil { // else the command is refused
			version = max(version, b.version())
		}
	}
	return version
}

// version is the lowest in which a backend can be written.
func (b *Backend) version() int {
	if b.Backup || b.Reason != "" || b.Falls != 0 || b.Agent != (Wish{}) {
		return 4
	}
	return 1
}

// The version methods of operations give the lowest version of a command that can
// say what the operation says.

func (*InitCluster) version() int   { return 1 }
func (op *Seed) version() int       { return backendsVersion(pointers(op.Backends)) }
func (op *CreatePool) version() int { return op.Pool.version() }
func (op *UpdatePool) version() int { return op.Pool.version() }
func (*DeletePool) version() int    { return 1 }
func (op *AddBackend) version() int { return op.Backend.version() }
func (*RemoveBackend) version() int { return 1 }
func (*PutRoute) version() int      { return 1 }
func (*RemoveRoute) version() int   { return 1 }

func (op *UpdateBackend) version() int {
	if op.Primary {
		return 4
	}
	return op.Patch.version()
}

func (op *SetHealth) version() int {
	for _, v := range op.Verdicts {
		if v.Reason != "" || v.Falls != 0 || v.Agent != nil {
			return 4
		}
	}
	return 1
}

func (op *Replace) version() int {
	version := 2
	for i := range op.Pools {
		version = max(version, op.Pools[i].version())
	}
	return version
}
