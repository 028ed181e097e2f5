package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

var errNotConfirmed = errors.New("not confirmed: nothing was changed")

// confirm asks on the terminal and returns nil for a typed yes. Where there is no
// terminal to ask on, its error wraps errUsage.
func confirm(in *os.File, out io.Writer, question string) error {
	noTerminal := fmt.Errorf("%w: there is no terminal to ask on: add -yes if you mean it; nothing was changed", errUsage)
	info, err := in.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return noTerminal
	}
	fmt.Fprintf(out, "%s Type yes to go on: ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	switch {
	case strings.TrimSpace(answer) == "yes":
		return nil
	case err != nil && answer == "": // such as /dev/null
		fmt.Fprintln(out)
		return noTerminal
	}
	return errNotConfirmed
}
