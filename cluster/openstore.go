package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// storePath is the file that holds the log.
func storePath(dir string) string { return filepath.Join(dir, "raft.db") }

// openStore opens the log in dir once all of it is known to be sound. The file's lock
// keeps a second process out. An error that is a damage says what is wrong with the file.
func openStore(dir string, log *slog.Logger) (*logStore, error) {
	s := &logStore{path: storePath(dir), report: func(error) {}}
	file, err := lockFile(s.path)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("the data directory %s is in use by another lbnode: stop it or choose another with -data-dir", dir)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("cannot write to the data directory: %w; choose another with -data-dir", err)
	case err != nil:
		return nil, fmt.Errorf("cannot open %s: %w", s.path, err)
	}
	found, err := readLogFile(file)
	if err != nil {
		return nil, errors.Join(&damage{s.path, err.Error()}, file.Close())
	}
	if err := s.term.open(s.path, found.term, log); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := s.open(file, found); err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	return s, nil
}

// lockFile opens a file and waits a second for whoever has its lock.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Second); ; time.Sleep(20 * time.Millisecond) {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(err, file.Close())
		}
	}
}

// open hands the file, with its lock, to bbolt and seals what is not sealed.
func (s *logStore) open(file *os.File, found *logContent) error {
	err := s.guarded(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
			OpenFile:       func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		})
		return err
	})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if s.sealed = found.sealed; s.sealed {
		return nil
	}
	err = s.change(func(logs, _ *bbolt.Bucket, now *seal) error {
		now.whole, now.last = found.whole, found.last
		return sealAll(logs)
	})
	if err != nil {
		return errors.Join(err, s.Close())
	}
	s.sealed = true
	return nil
}

// sealAll gives each entry its checksum that has none.
func sealAll(logs *bbolt.Bucket) error {
	bare := map[uint64][]byte{}
	at := logs.Cursor()
	for key, value := at.First(); key != nil; key, value = at.Next() {
		if _, ok := unsealValue(key, value); !ok {
			bare[indexOf(key)] = sealValue(key, value[:len(value):len(value)])
		}
	}
	for index, value := range bare {
		if err := logs.Put(keyOf(index), value); err != nil {
			return err
		}
	}
	return nil
}

// logContent is what a file with a log holds.
type logContent struct {
	file        *boltFile
	first, last uint64 // entries, 0 for none
	whole       uint64 // from here to last, no entry is missing
	term        uint64
	conf        uint32 // checksum of term and vote
	bare        uint64 // an entry without a checksum
	checked     bool   // there are entries with one
	seal        *seal
	sealed      bool // by the last change
}

// readLogFile reads all that a file holds. The error says what is damaged of it.
func readLogFile(file *os.File) (*logContent, error) {
	info, err := file.Stat()
	found := &logContent{}
	if err != nil || info.Size() == 0 { // a new one
		return found, err
	}
	if found.file, err = readBolt(file, info.Size(), found.visit); err != nil {
		return found, err
	}
	return found, found.checkSeal()
}

// visit takes a key and its value into account.
func (c *logContent) visit(bucket string, key, value []byte) error {
	switch bucket {
	case string(logsBucket):
		return c.visitEntry(key, value)
	case string(confBucket):
		if string(key) == string(sealKey) {
			was, err := decodeSeal(value)
			c.seal = &was
			return err
		}
		if string(key) == currentTerm && len(value) == 8 {
			c.term = indexOf(value)
		}
		c.conf = addConf(c.conf, key, value)
	}
	return nil
}

func (c *logContent) visitEntry(key, value []byte) error {
	if len(key) != 8 {
		return fmt.Errorf("%q is no index of an entry", key)
	}
	index := indexOf(key)
	if c.first == 0 {
		c.first = index
	}
	if index != c.last+1 {
		c.whole = index
	}
	c.last = index
	if _, ok := unsealValue(key, value); ok {
		c.checked = true
		return nil
	}
	var entry raft.Log
	if size, err := decodeEntry(value, &entry); err != nil || size != len(value) || entry.Index != index {
		return fmt.Errorf("entry %d does not match its checksum", index)
	}
	c.bare = index
	return nil
}

// checkSeal compares what was found with the seal.
func (c *logContent) checkSeal() error {
	switch {
	case c.seal == nil && c.checked:
		return errors.New("its seal is gone")
	case c.seal == nil || c.seal.change < c.file.change: // by a binary that knows of none
		return nil
	case c.seal.change > c.file.change:
		return fmt.Errorf("it has changes up to %d, and the seal of change %d", c.file.change, c.seal.change)
	case c.bare != 0:
		return fmt.Errorf("entry %d does not match its checksum", c.bare)
	case c.last != c.seal.last:
		return fmt.Errorf("its log ends at entry %d, not %d", c.last, c.seal.last)
	case c.whole > c.seal.whole:
		return fmt.Errorf("entries before %d are missing, from %d on", c.whole, c.seal.whole)
	case c.conf != c.seal.conf:
		return errors.New("the term and the vote do not match their checksum")
	}
	c.sealed = true
	return nil
}
