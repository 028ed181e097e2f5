package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// print gives the answer in the form that was asked for: value as the API has
// it, or what table writes, in which tabs end the cells.
func (c *invocation) print(value any, table func(io.Writer)) error {
	if c.output == "json" {
		encoder := json.NewEncoder(c.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("cannot print: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	table(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("cannot print: %w", err)
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
