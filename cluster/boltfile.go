package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// boltFile reads a file of bbolt and trusts nothing in it. The library believes what
// it reads: in a damaged file it panics, faults, or follows a circle until the stack
// ends, and most damage it does not see, because only two of its pages have a checksum.
//
// The format: pages 0 and 1 say where the rest is, each as of every other change. From
// there a tree of pages leads to the buckets, and each of them is a tree of keys and
// values, or a page within the value that names it.
type boltFile struct {
	file io.ReaderAt
	boltMeta
	seen map[uint64]bool // the pages that belong to something
}

// boltMeta is what page 0 or 1 says.
type boltMeta struct {
	pageSize uint64
	root     uint64
	freelist uint64
	end      uint64 // the first page that is not used
	change   uint64 // number of the change
}

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	pageHeader  = 16
	pageElement = 16

	branchPage   = 1
	leafPage     = 2
	metaPage     = 4
	freelistPage = 16

	bucketElement = 1
)

// boltPage is a page with those that continue it.
type boltPage struct {
	flags, count int
	data         []byte
}

// visitor is shown each key of each bucket, in their order.
type visitor func(bucket string, key, value []byte) error

// readBolt shows all that is in a file to visit. The error says what is wrong with the
// file and where, or is that of visit.
func readBolt(file io.ReaderAt, size int64, visit visitor) (*boltFile, error) {
	f := &boltFile{file: file, seen: map[uint64]bool{0: true, 1: true}}
	if err := f.readMeta(uint64(size)); err != nil {
		return f, err
	}
	err := f.readTree(f.root, nil, nil, func(name string, flags uint32, value []byte) error {
		if flags != bucketElement {
			return fmt.Errorf("%q is no bucket", name)
		}
		return f.readBucket(name, value, visit)
	})
	if err != nil {
		return f, err
	}
	return f, f.readFreelist()
}

// readMeta reads the first two pages. Each change writes one of them, in turn: where
// one is damaged or too old, the last change may be lost, which is what bbolt passes
// over in silence. They are too small to be torn by a power cut.
func (f *boltFile) readMeta(size uint64) error {
	first, err := f.metaAt(0, 0)
	if err != nil {
		return fmt.Errorf("page 0: %w", err)
	}
	second, err := f.metaAt(first.pageSize, 1)
	if err != nil {
		return fmt.Errorf("page 1: %w", err)
	}
	f.boltMeta = first
	if second.change > first.change {
		f.boltMeta = second
	}
	switch {
	case first.pageSize != second.pageSize, first.change+1 != second.change && second.change+1 != first.change:
		return fmt.Errorf("pages 0 and 1 are of changes %d and %d: one is missing", first.change, second.change)
	case size/f.pageSize < f.end:
		return fmt.Errorf("it is cut off after %d bytes of %d", size, f.end*f.pageSize)
	}
	return nil
}

func (f *boltFile) metaAt(offset, page uint64) (m boltMeta, err error) {
	text := make([]byte, pageHeader+64)
	if _, err := f.file.ReadAt(text, int64(offset)); err != nil {
		return m, readError(err)
	}
	header, text := text[:pageHeader], text[pageHeader:]
	u32 := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(text[at:])) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(text[at:]) }
	sum := fnv.New64a()
	sum.Write(text[:56])
	switch m = (boltMeta{pageSize: u32(8), root: u64(16), freelist: u64(32), end: u64(40), change: u64(48)}); {
	case u32(0) != boltMagic, u32(4) != boltVersion:
		return m, errors.New("it is not of this kind of file")
	case u64(56) != sum.Sum64(), m.change%2 != page, m.pageSize < 1024, m.pageSize > 1<<16, binary.NativeEndian.Uint64(header) != page,
		binary.NativeEndian.Uint16(header[8:]) != metaPage:
		return m, errSum
	}
	return m, nil
}

var errSum = errors.New("it does not match its checksum")

func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it is cut off")
	}
	return err
}

// page reads a page that nothing else has led to.
func (f *boltFile) page(id uint64) (*boltPage, error) {
	header := make([]byte, pageHeader)
	if id >= f.end {
		return nil, fmt.Errorf("page %d: there are %d", id, f.end)
	}
	if _, err := f.file.ReadAt(header, int64(id*f.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, readError(err))
	}
	p, more := parseHeader(header)
	if got := binary.NativeEndian.Uint64(header); got != id {
		return nil, fmt.Errorf("page %d: it says that it is page %d", id, got)
	}
	if more >= f.end-id {
		return nil, fmt.Errorf("page %d: it goes on for %d pages, of %d", id, more, f.end)
	}
	for n := id; n <= id+more; n++ {
		if f.seen[n] {
			return nil, fmt.Errorf("page %d: two lead there", n)
		}
		f.seen[n] = true
	}
	p.data = make([]byte, (1+more)*f.pageSize)
	if _, err := f.file.ReadAt(p.data, int64(id*f.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, readError(err))
	}
	return p, nil
}

func parseHeader(header []byte) (p *boltPage, more uint64) {
	flags, count := binary.NativeEndian.Uint16(header[8:]), binary.NativeEndian.Uint16(header[10:])
	return &boltPage{flags: int(flags), count: int(count)}, uint64(binary.NativeEndian.Uint32(header[12:]))
}

// readTree shows each key below a page to show. The keys are from low and below high,
// where they are given.
func (f *boltFile) readTree(id uint64, low, high []byte, show func(key string, flags uint32, value []byte) error) error {
	p, err := f.page(id)
	if err != nil {
		return err
	}
	switch p.flags {
	case leafPage:
		err = p.readLeaf(low, high, show)
	case branchPage:
		return f.readBranch(id, p, low, high, show)
	default:
		err = fmt.Errorf("it is of the unknown kind %#x", p.flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (f *boltFile) readBranch(id uint64, p *boltPage, low, high []byte, show func(key string, flags uint32, value []byte) error) error {
	keys, children := make([][]byte, p.count), make([]uint64, p.count)
	for i := range p.count {
		at, ok := p.element(i)
		if ok {
			children[i] = binary.NativeEndian.Uint64(p.data[at+8:])
			keys[i], ok = p.part(at, 0, 4, 0)
		}
		if !ok || !inOrder(keys[i], low, high) || i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0 {
			return fmt.Errorf("page %d: key %d of %d is damaged", id, i+1, p.count)
		}
	}
	if p.count == 0 {
		return fmt.Errorf("page %d: it leads nowhere", id)
	}
	for i, child := range children {
		end := high
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		if err := f.readTree(child, keys[i], end, show); err != nil {
			return err
		}
	}
	return nil
}

// readLeaf shows the keys of a page.
func (p *boltPage) readLeaf(low, high []byte, show func(key string, flags uint32, value []byte) error) error {
	var before []byte
	for i := range p.count {
		at, ok := p.element(i)
		var key, value []byte
		if ok {
			key, ok = p.part(at, 4, 8, 0)
		}
		if ok {
			value, ok = p.part(at, 4, 12, len(key))
		}
		if !ok || !inOrder(key, low, high) || i > 0 && bytes.Compare(before, key) >= 0 {
			return fmt.Errorf("key %d of %d is damaged", i+1, p.count)
		}
		before = key
		if err := show(string(key), binary.NativeEndian.Uint32(p.data[at:]), value); err != nil {
			return err
		}
	}
	return nil
}

func inOrder(key, low, high []byte) bool {
	return len(key) > 0 && bytes.Compare(key, low) >= 0 && (high == nil || bytes.Compare(key, high) < 0)
}

// element is where the element i of the page begins.
func (p *boltPage) element(i int) (at int, ok bool) {
	at = pageHeader + i*pageElement
	return at, at+pageElement <= len(p.data)
}

// part is the bytes of an element that begin skip bytes behind where its field pos says,
// as many as its field size says.
func (p *boltPage) part(at, pos, size, skip int) ([]byte, bool) {
	from := uint64(at) + uint64(binary.NativeEndian.Uint32(p.data[at+pos:])) + uint64(skip)
	to := from + uint64(binary.NativeEndian.Uint32(p.data[at+size:]))
	if to > uint64(len(p.data)) {
		return nil, false
	}
	return p.data[from:to], true
}

// readBucket shows the keys of a bucket, which has a tree of its own or a page in the
// value that names it.
func (f *boltFile) readBucket(name string, value []byte, visit visitor) error {
	show := func(key string, flags uint32, value []byte) error {
		if flags != 0 {
			return fmt.Errorf("key %q of bucket %s is damaged", key, name)
		}
		return visit(name, []byte(key), value)
	}
	if len(value) < 16 {
		return fmt.Errorf("bucket %q is cut off", name)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return f.readTree(root, nil, nil, show)
	}
	value = value[16:]
	if len(value) < pageHeader {
		return fmt.Errorf("bucket %q is cut off", name)
	}
	p, _ := parseHeader(value)
	if p.data = value; p.flags != leafPage {
		return fmt.Errorf("bucket %q is of the unknown kind %#x", name, p.flags)
	}
	if err := p.readLeaf(nil, nil, show); err != nil {
		return fmt.Errorf("bucket %q: %w", name, err)
	}
	return nil
}

// readFreelist checks the list of free pages, if there is one: what it names is
// overwritten next.
func (f *boltFile) readFreelist() error {
	if f.freelist == noFreelist {
		return nil
	}
	p, err := f.page(f.freelist)
	if err != nil {
		return err
	}
	at, count := uint64(pageHeader), uint64(p.count)
	if count == 0xFFFF { // more than fit there
		at, count = at+8, binary.NativeEndian.Uint64(p.data[at:])
	}
	if p.flags != freelistPage || count > (uint64(len(p.data))-at)/8 {
		return fmt.Errorf("page %d: the list of free pages is damaged", f.freelist)
	}
	for i := range count {
		id := binary.NativeEndian.Uint64(p.data[at+8*i:])
		if f.seen[id] || id >= f.end {
			return fmt.Errorf("page %d: the list of free pages has page %d, which is none", f.freelist, id)
		}
		f.seen[id] = true
	}
	return nil
}
