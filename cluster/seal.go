package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/google/renameio/v2"
	"go.etcd.io/bbolt"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errUnsealed = errors.New("it does not match its checksum")

// sealValue gives an entry its checksum, which is also of the key.
func sealValue(key, text []byte) []byte {
	return binary.BigEndian.AppendUint32(text, valueSum(key, text))
}

// unsealValue takes the checksum off and says whether there is one that is right.
func unsealValue(key, value []byte) (text []byte, ok bool) {
	if len(value) < crc32.Size {
		return nil, false
	}
	text = value[:len(value)-crc32.Size]
	return text, binary.BigEndian.Uint32(value[len(text):]) == valueSum(key, text)
}

func valueSum(key, text []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, text)
}

// seal is what is said of the file in each change.
type seal struct {
	change uint64 // its number
	whole  uint64 // index in the log: from here to last, no entry is missing
	last   uint64
	conf   uint32 // checksum of term and vote
}

const sealSize = 3*8 + 4 + crc32.Size

func (s seal) encode() []byte {
	text := binary.BigEndian.AppendUint64(make([]byte, 0, sealSize), s.change)
	text = binary.BigEndian.AppendUint64(text, s.whole)
	text = binary.BigEndian.AppendUint64(text, s.last)
	return sealValue(sealKey, binary.BigEndian.AppendUint32(text, s.conf))
}

func decodeSeal(value []byte) (s seal, err error) {
	text, ok := unsealValue(sealKey, value)
	if !ok || len(value) != sealSize {
		return s, errUnsealed
	}
	u64 := binary.BigEndian.Uint64
	return seal{u64(text), u64(text[8:]), u64(text[16:]), binary.BigEndian.Uint32(text[24:])}, nil
}

// confSum is the checksum of term and vote.
func confSum(conf *bbolt.Bucket) (sum uint32) {
	at := conf.Cursor()
	for key, value := at.First(); key != nil; key, value = at.Next() {
		sum = addConf(sum, key, value)
	}
	return sum
}

func addConf(sum uint32, key, value []byte) uint32 {
	if string(key) == string(sealKey) {
		return sum
	}
	for _, part := range [][]byte{key, value} {
		sum = crc32.Update(sum, castagnoli, binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}

// Files of JSON are sealed with white space at their end, 32 of it for the bits of a
// checksum: so all who read JSON read them as before, binaries that know of no seal too.
const sealBlanks = " \t"

// sealJSON adds the seal to a text.
func sealJSON(text []byte) []byte {
	sum := crc32.Checksum(text, castagnoli)
	for bit := range 32 {
		text = append(text, sealBlanks[sum>>bit&1])
	}
	return append(text, '\n')
}

// checkJSON says whether a text is as it was sealed. One without a seal was written by a
// binary that knows of none.
func checkJSON(text []byte) (sealed bool, err error) {
	const size = 32 + 1
	if len(text) < size || text[len(text)-1] != '\n' {
		return false, nil
	}
	var sum uint32
	for bit, blank := range text[len(text)-size : len(text)-1] {
		switch blank {
		case sealBlanks[1]:
			sum |= 1 << bit
		case sealBlanks[0]:
		default:
			return false, nil
		}
	}
	if crc32.Checksum(text[:len(text)-size], castagnoli) != sum {
		return true, errUnsealed
	}
	return true, nil
}

// readSealed reads JSON that has a seal, or none yet.
func readSealed(text []byte, into any) error {
	if _, err := checkJSON(text); err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// sealFile seals a file of JSON that is not sealed.
func sealFile(path string) error {
	text, err := os.ReadFile(path)
	if sealed, _ := checkJSON(text); sealed {
		return nil
	}
	if err == nil {
		err = renameio.WriteFile(path, sealJSON(text), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot seal %s: %w", path, err)
	}
	return nil
}
