package cluster

import (
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"lbnode/state"
)

// The registers that clients read and write are the backends of one pool; the value
// of one is its backend's port. No value is written to a register twice, except by a
// fault of what is tested.
const (
	registerPool = "registers"
	registers    = 16
	firstValue   = 1
)

func registerName(key int) string { return fmt.Sprintf("r%d", key) }

// makeRegisters is the operation that makes them all.
func makeRegisters() state.Op {
	pool := state.Pool{Name: registerPool}
	for key := range registers {
		pool.Backends = append(pool.Backends, &state.Backend{
			ID: NewID(), Name: registerName(key), Host: fmt.Sprintf("10.0.0.%d", key+1), Port: firstValue,
		})
	}
	return &state.CreatePool{Pool: pool}
}

// setRegister is the operation that writes one.
func setRegister(key, value int) state.Op {
	return &state.UpdateBackend{Pool: registerPool, Name: registerName(key), Patch: state.Backend{Port: value}}
}

// registerIn is the value of a register in a view, 0 if it is not there.
func registerIn(view *state.View, key int) int {
	pool := view.Pool(registerPool)
	if pool == nil || pool.Backend(registerName(key)) == nil {
		return 0
	}
	return pool.Backend(registerName(key)).Port
}

// access is one operation on one register.
type access struct {
	kind  accessKind
	value int // that was read or written
	seen  int // exchange: the value that it was to replace
}

type accessKind string

const (
	reads     accessKind = "read"
	writes    accessKind = "write"
	exchanges accessKind = "exchange"
)

// step is the model of a register: what it holds after an operation, and whether
// the operation was possible.
func (a access) step(held int) (possible bool, next int) {
	switch a.kind {
	case reads:
		return a.value == held, held
	case writes:
		return true, a.value
	default:
		return a.seen == held, a.value
	}
}

// timed is when an operation was called and when it returned.
type timed struct {
	client      int
	call, ended time.Duration // since the history began
}

// checkWithin is how long one register's window may be judged.
const checkWithin = time.Minute

// never is when an operation returns of which nobody was told what became.
const never = time.Duration(math.MaxInt64)

// history is what clients did and saw, in windows: check judges one and begins the
// next.
type history struct {
	began time.Time

	mu   sync.Mutex
	keys [registers]record
}

// record is the history of one register.
type record struct {
	first int // the value when the window began
	last  int // the highest value ever given out
	ended []porcupine.Operation
	// doubtful are the writes of unknown outcome, of this window or an earlier one,
	// by their values. Nobody has seen them, but they may yet take effect.
	doubtful map[int]porcupine.Operation
}

func newHistory() *history {
	h := &history{began: time.Now()}
	for key := range h.keys {
		h.keys[key] = record{first: firstValue, last: firstValue, doubtful: map[int]porcupine.Operation{}}
	}
	return h
}

func (h *history) now() time.Duration { return time.Since(h.began) }

// fresh returns a value that the register never had.
func (h *history) fresh(key int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys[key].last++
	return h.keys[key].last
}

// note records an operation. What surely has not happened is not to be noted, so
// that it is illegal if anybody sees it.
func (h *history) note(key int, a access, when timed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: when.client, Input: a, Call: int64(when.call), Return: int64(when.ended)}
	if when.ended == never {
		h.keys[key].doubtful[a.value] = op
	} else {
		h.keys[key].ended = append(h.keys[key].ended, op)
	}
}

// noteView records a read of all registers.
func (h *history) noteView(view *state.View, when timed) {
	for key := range registers {
		h.note(key, access{kind: reads, value: registerIn(view, key)}, when)
	}
}

// check judges the window and begins the next with what the registers have in view,
// which was read after all else. No operation may be under way. The error is an
// *illegal if no single copy of the registers could have the history.
func (h *history) check(view *state.View) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.keys {
		if err := h.keys[key].check(); err != nil {
			return fmt.Errorf("register %d: %w", key, err)
		}
		h.keys[key].first, h.keys[key].ended = registerIn(view, key), nil
	}
	return nil
}

func (r *record) check() error {
	model := registerModel(r.first)
	operations := append(slices.Clone(r.ended), r.seen()...)
	switch result := porcupine.CheckOperationsTimeout(model, operations, checkWithin); result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("%d operations could not be judged within %s", len(operations), checkWithin)
	}
	return &illegal{model, operations}
}

// seen takes the doubtful writes that somebody has seen out of doubt. The others
// have not happened yet as far as anybody knows, and leaving them out keeps the
// search short.
func (r *record) seen() []porcupine.Operation {
	var seen []porcupine.Operation
	for _, op := range r.ended {
		a := op.Input.(access)
		value := a.value
		if a.kind == exchanges {
			value = a.seen
		}
		if doubtful, found := r.doubtful[value]; found {
			seen = append(seen, doubtful)
			delete(r.doubtful, value)
		}
	}
	return seen
}

// registerModel is what the checker knows of a register that first holds this.
func registerModel(first int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(held, input, _ any) (bool, any) {
			possible, next := input.(access).step(held.(int))
			return possible, next
		},
		DescribeOperation: func(input, _ any) string {
			a := input.(access)
			if a.kind == exchanges {
				return fmt.Sprintf("%d for %d", a.value, a.seen)
			}
			return fmt.Sprintf("%s %d", a.kind, a.value)
		},
	}
}

// illegal is a history that no single copy of a register could have.
type illegal struct {
	model      porcupine.Model
	operations []porcupine.Operation
}

func (i *illegal) Error() string {
	return fmt.Sprintf("no single copy could have had these %d operations", len(i.operations))
}

// draw writes a picture of it to a file that outlasts the test.
func (i *illegal) draw() (path string, err error) {
	file, err := os.CreateTemp("", "lbnode-history-*.html")
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, info := porcupine.CheckOperationsVerbose(i.model, i.operations, checkWithin)
	return file.Name(), porcupine.Visualize(i.model, info, file)
}
