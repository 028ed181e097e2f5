package simulate

// event is something that is known to happen at a time.
type event struct {
	at       int64
	kind     kind
	backend  *backend
	exchange *exchange
}

type kind uint8

const (
	answered kind = iota // a backend answers an exchange
	stalled              // an exchange has waited for long enough
	freed                // a backend has done with what nobody waits for
)

// events are a heap: none is before the first.
type events []event

func (e *events) push(new event) {
	*e = append(*e, new)
	list := *e
	for i := len(list) - 1; i > 0; {
		up := (i - 1) / 2
		if list[up].at <= list[i].at {
			break
		}
		list[up], list[i] = list[i], list[up]
		i = up
	}
}

func (e *events) pop() event {
	list := *e
	first, last := list[0], len(list)-1
	list[0] = list[last]
	list[last] = event{}
	list = list[:last]
	*e = list
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if list[child].at < list[least].at {
				least = child
			}
		}
		if least == i {
			return first
		}
		list[i], list[least] = list[least], list[i]
		i = least
	}
}
