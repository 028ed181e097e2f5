package cluster

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// logStore keeps Raft's log, term and vote in raft.db, in the form of raft-boltdb, which
// binaries before it used: they read what it writes, and it reads what they wrote.
//
// What it adds tells a damaged file from a good one. Each entry has a checksum behind it, which
// raft-boltdb does not read. A seal is renewed in each change, with it: it says which change
// that is, where the log ends, and what the checksum of term and vote is. So an entry that is
// not as it was stored, one that is gone, and a part of the file that is older than the
// rest do not match. A seal of an older change means that another binary has written since,
// which knows nothing of all this. What that wrote is sealed when the file is opened.
//
// That the whole file is an older one is seen by what stands beside it: term.json, which is
// written before this node takes part in a new term, and view.json.
type logStore struct {
	db     *bbolt.DB
	path   string
	term   termFile
	broken atomic.Pointer[damage]
	report func(error) // of damage found while the node runs; must not block
	sealed bool        // from now on each change must find the seal of the one before
}

var (
	logsBucket = []byte("logs")
	confBucket = []byte("conf") // term and vote
	sealKey    = []byte("lbnode.seal")
)

// errNoKey has the text by which Raft knows it.
var errNoKey = errors.New("not found")

// guarded carries out an operation on the file. In a file that was damaged after it was
// opened bbolt panics, or faults where the file has become shorter than it was.
func (s *logStore) guarded(operation func() error) (err error) {
	if d := s.broken.Load(); d != nil {
		return d
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &damage{s.path, fmt.Sprintf("it was cut off or overwritten while it was open (%v)", r)}
		}
		var d *damage
		if errors.As(err, &d) && s.broken.CompareAndSwap(nil, d) {
			s.report(d)
		}
	}()
	return operation()
}

func (s *logStore) view(look func(logs, conf *bbolt.Bucket) error) error {
	return s.guarded(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return look(tx.Bucket(logsBucket), tx.Bucket(confBucket)) })
	})
}

// change makes a change and seals it. What the seal says of the log is for edit to say: in
// a transaction that has deleted, bbolt's cursor may look for the last key for ever.
func (s *logStore) change(edit func(logs, conf *bbolt.Bucket, now *seal) error) error {
	return s.guarded(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			logs, conf, err := buckets(tx)
			if err != nil {
				return err
			}
			now, err := decodeSeal(conf.Get(sealKey))
			if s.sealed && (err != nil || now != seal{uint64(tx.ID()) - 1, now.whole, lastIndex(logs), confSum(conf)}) {
				return &damage{s.path, "it was overwritten while it was open"}
			}
			if err := edit(logs, conf, &now); err != nil {
				return err
			}
			now.change, now.conf = uint64(tx.ID()), confSum(conf)
			return conf.Put(sealKey, now.encode())
		})
	})
}

// buckets are both, which a new file gets.
func buckets(tx *bbolt.Tx) (logs, conf *bbolt.Bucket, err error) {
	logs, conf = tx.Bucket(logsBucket), tx.Bucket(confBucket)
	if logs == nil {
		logs, err = tx.CreateBucket(logsBucket)
	}
	if conf == nil && err == nil {
		conf, err = tx.CreateBucket(confBucket)
	}
	return logs, conf, err
}

func firstIndex(logs *bbolt.Bucket) uint64 {
	first, _ := logs.Cursor().First()
	return indexOf(first)
}

func lastIndex(logs *bbolt.Bucket) uint64 {
	last, _ := logs.Cursor().Last()
	return indexOf(last)
}

// indexOf is the index that a key stands for, 0 for none.
func indexOf(key []byte) uint64 {
	if key == nil {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}

func keyOf(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// FirstIndex implements raft.LogStore.
func (s *logStore) FirstIndex() (first uint64, err error) {
	err = s.view(func(logs, _ *bbolt.Bucket) error {
		first = firstIndex(logs)
		return nil
	})
	return first, err
}

// LastIndex implements raft.LogStore.
func (s *logStore) LastIndex() (last uint64, err error) {
	err = s.view(func(logs, _ *bbolt.Bucket) error {
		last = lastIndex(logs)
		return nil
	})
	return last, err
}

// extent is where the log ends, and from which index to there no entry is missing.
func (s *logStore) extent() (last, whole uint64, err error) {
	err = s.view(func(logs, conf *bbolt.Bucket) error {
		was, err := decodeSeal(conf.Get(sealKey))
		if err != nil {
			return &damage{s.path, "its seal is damaged"}
		}
		last, whole = lastIndex(logs), max(was.whole, firstIndex(logs))
		return nil
	})
	return last, whole, err
}

// GetLog implements raft.LogStore.
func (s *logStore) GetLog(index uint64, entry *raft.Log) error {
	err := s.view(func(logs, _ *bbolt.Bucket) error {
		key := keyOf(index)
		value := logs.Get(key)
		if value == nil {
			return raft.ErrLogNotFound
		}
		text, ok := unsealValue(key, value)
		if !ok {
			return &damage{s.path, fmt.Sprintf("entry %d does not match its checksum", index)}
		}
		if _, err := decodeEntry(text, entry); err != nil {
			return &damage{s.path, fmt.Sprintf("entry %d cannot be read: %v", index, err)}
		}
		return nil
	})
	if errors.Is(err, raft.ErrLogNotFound) {
		return s.missing(index)
	}
	return err
}

// missing is the error for an entry that is not there: it was deleted behind a snapshot,
// or is of the future, or the file is damaged.
func (s *logStore) missing(index uint64) error {
	return s.guarded(func() error {
		last, whole, err := s.extent()
		if err == nil && whole <= index && index <= last {
			return &damage{s.path, fmt.Sprintf("entry %d is gone", index)}
		}
		return cmp.Or(err, raft.ErrLogNotFound)
	})
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(entries []*raft.Log) error {
	return s.change(func(logs, _ *bbolt.Bucket, now *seal) error {
		if now.last == 0 || entries[0].Index > now.last+1 { // an installed snapshot came between
			now.whole = entries[0].Index
		}
		now.last = max(now.last, entries[len(entries)-1].Index)
		for _, entry := range entries {
			text, err := encodeEntry(entry)
			if err != nil {
				return err
			}
			key := keyOf(entry.Index)
			if err := logs.Put(key, sealValue(key, text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(first, last uint64) error {
	return s.change(func(logs, _ *bbolt.Bucket, now *seal) error {
		at := logs.Cursor()
		if last < now.last {
			now.whole = max(now.whole, last+1)
		} else if now.last >= first {
			at.Seek(keyOf(first))
			before, _ := at.Prev()
			now.last = indexOf(before)
		}
		for key, _ := at.Seek(keyOf(first)); key != nil && indexOf(key) <= last; key, _ = at.Next() {
			if err := at.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set implements raft.StableStore.
func (s *logStore) Set(key, value []byte) error {
	return s.change(func(_, conf *bbolt.Bucket, _ *seal) error { return conf.Put(key, value) })
}

// Get implements raft.StableStore.
func (s *logStore) Get(key []byte) (value []byte, err error) {
	err = s.view(func(_, conf *bbolt.Bucket) error {
		if was, err := decodeSeal(conf.Get(sealKey)); err != nil || was.conf != confSum(conf) {
			return &damage{s.path, "the term and the vote do not match their checksum"}
		}
		kept := conf.Get(key)
		if kept == nil {
			return errNoKey
		}
		value = append(value, kept...)
		return nil
	})
	return value, err
}

// SetUint64 implements raft.StableStore. A term is in term.json as well when this
// returns, but never a newer one than here, unless the process ends in between.
func (s *logStore) SetUint64(key []byte, value uint64) error {
	store := func() error { return s.Set(key, keyOf(value)) }
	if string(key) != currentTerm {
		return store()
	}
	return s.term.keep(value, store)
}

// GetUint64 implements raft.StableStore.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, &damage{s.path, fmt.Sprintf("the value of %s has %d bytes", key, len(value))}
	}
	return indexOf(value), nil
}

// Close closes the file. One that is damaged is left to the end of the process: bbolt may
// still hold what it would wait for.
func (s *logStore) Close() error {
	if s.broken.Load() != nil {
		return nil
	}
	return s.guarded(s.db.Close)
}

// encodeEntry gives an entry the form that raft-boltdb gives it.
func encodeEntry(entry *raft.Log) (text []byte, err error) {
	handle := codec.MsgpackHandle{BasicHandle: codec.BasicHandle{TimeNotBuiltin: true}}
	err = codec.NewEncoderBytes(&text, &handle).Encode(entry)
	return text, err
}

// decodeEntry returns how many bytes the entry has.
func decodeEntry(text []byte, entry *raft.Log) (int, error) {
	*entry = raft.Log{}
	from := codec.NewDecoderBytes(text, &codec.MsgpackHandle{})
	err := from.Decode(entry)
	return from.NumBytesRead(), err
}
