package health

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"

	"lbnode/state"
)

// An agent says in one line of words how its backend is: whether it works, what admin
// state it asks for, and which part of its weight. What a line does not speak of stays
// as it was. See https://docs.haproxy.org/3.0/configuration.html#5.2-agent-check.

const (
	maxAgentLine   = 1 << 10
	maxDescription = 80
)

var errNotAgent = errors.New("not the answer of an agent: a line of words such as up, down, ready, drain, maint or 50%")

// words are what one line of an agent says.
type words struct {
	down   bool
	admin  state.Admin // empty if it is not spoken of
	weight string      // such as "50%", empty if it is not spoken of
}

// over gives the wish that the words make of an earlier one.
func (w words) over(wish state.Wish) state.Wish {
	switch w.admin {
	case "":
	case state.Ready:
		wish.Admin = ""
	default:
		wish.Admin = w.admin
	}
	if percent, ok := state.ParsePercent(w.weight); ok {
		wish.Weight = state.FormatPercent(percent)
	}
	return wish
}

// askAgent reads what the agent says. It is sent nothing.
func askAgent(conn net.Conn) (result, error) {
	line, err := bufio.NewReader(io.LimitReader(conn, maxAgentLine)).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return result{}, err
	}
	said, description, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "#")
	w, ok := parseWords(said)
	if !ok {
		return result{}, errNotAgent
	}
	reason := "agent: " + strings.Join(fieldsOf(said), " ")
	if text := plainText(description); text != "" {
		reason += ", " + text
	}
	return result{passed: !w.down, reason: reason, said: w}, nil
}

func fieldsOf(said string) []string {
	return strings.FieldsFunc(strings.ToLower(said), func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
}

// parseWords takes the last of several that speak of one thing.
func parseWords(said string) (w words, ok bool) {
	for _, word := range fieldsOf(said) {
		_, isPercent := state.ParsePercent(word)
		switch {
		case word == "up":
			w.down = false
		case word == "down", word == "stopped", word == "fail", word == "failed":
			w.down = true
		case word == "ready", word == "drain", word == "maint":
			w.admin = state.Admin(word)
		case isPercent:
			w.weight = word
		case strings.HasPrefix(word, "maxconn:"): // a limit of HAProxy's, which has no match here
		default:
			return words{}, false
		}
		ok = true
	}
	return w, ok
}

// plainText keeps what an agent tells of its reasons to what can be shown anywhere.
func plainText(description string) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, description)
	return strings.TrimSpace(plain[:min(len(plain), maxDescription)])
}
