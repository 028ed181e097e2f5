package main

import (
	"errors"
	"fmt"

	"lbnode/cluster"
	"lbnode/cluster/admin"
)

// changeFailed says that a change was not made or, if that is not known, so.
// change is what was asked for, as in "add backend web-1"; look is the command
// that shows whether it has happened.
func changeFailed(err error, change, look string) error {
	if !errors.Is(err, cluster.ErrUnknownOutcome) {
		return fmt.Errorf("cannot %s: %w", change, err)
	}
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		plain := *p
		plain.Hint = "" // it speaks of a header, which no command has
		err = &plain
	}
	return fmt.Errorf("asked to %s, but it was not confirmed: %w; %s shows whether it has happened: if not, repeat it", change, err, look)
}
