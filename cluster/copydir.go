package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/google/renameio/v2"
)

// keepCopy copies a directory to the first name after the suffix that is free,
// dir.suffix-1, and returns that. The copy is whole and on disk, or not there.
func keepCopy(dir, suffix string) (string, error) {
	for n := 1; ; n++ {
		kept := dir + "." + suffix + "-" + strconv.Itoa(n)
		if _, err := os.Lstat(kept); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		partial := kept + ".partial"
		if err := os.RemoveAll(partial); err != nil { // of a run that was cut short
			return "", err
		}
		if err := copyTree(dir, partial); err != nil {
			return "", errors.Join(err, os.RemoveAll(partial))
		}
		if err := os.Rename(partial, kept); err != nil {
			return "", err
		}
		return kept, syncDir(filepath.Dir(kept))
	}
}

// copyTree copies a directory with its files' modes and owners.
func copyTree(from, to string) error {
	var dirs []string
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if entry.IsDir() {
			dirs = append(dirs, target)
		}
		return copyEntry(path, target, entry)
	})
	for i := 0; err == nil && i < len(dirs); i++ {
		err = syncDir(dirs[i])
	}
	return err
}

func copyEntry(from, to string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch {
	case entry.IsDir():
		err = os.Mkdir(to, info.Mode().Perm()|0o700)
	case entry.Type().IsRegular():
		err = copyFile(from, to, info.Mode().Perm())
	default:
		return fmt.Errorf("%s is neither a file nor a directory: move it away", from)
	}
	if err != nil {
		return err
	}
	return ownerOf(info).give(to)
}

func copyFile(from, to string, mode fs.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Sync(), target.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// owner is whom a file belongs to. Only root can give files away, and must: what it
// writes for a node that runs as another user, that user must be able to read.
type owner struct{ user, group int }

func ownerOf(info fs.FileInfo) owner {
	stat := info.Sys().(*syscall.Stat_t)
	return owner{int(stat.Uid), int(stat.Gid)}
}

func (o owner) give(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, o.user, o.group)
}

// giveAll gives a directory and all in it to the directory's owner.
func giveAll(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return ownerOf(info).give(path)
	})
}

// replaceFile writes a file for the owner of its directory, whole or not at all.
func replaceFile(path string, data []byte) error {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := ownerOf(info).give(file.Name()); err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
