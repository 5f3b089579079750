package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A placeholder is an empty file or directory that a cage needs on the host as
// a place for a mount. Each running cage keeps a file with the ones it uses,
// locked for as long as it lives: a file that is not locked belongs to a cage
// that was killed, and whoever starts next clears up after it.

const (
	maxPlaceholders = 200
	maxRegistry     = 1000
	maxRecord       = 1 << 20
)

// placeholder is one of them. Ino is 0 from before it is made until after.
type placeholder struct {
	Root string // directory that is opened, and below which no link is followed
	Path string
	Dev  uint64
	Ino  uint64
	Dir  bool
	Text string `json:",omitempty"` // content on the host, where an empty file would be an error
}

type record struct {
	Started time.Time
	Entries []placeholder
}

// registration is the part of one cage.
type registration struct {
	dir     string
	file    *os.File
	record  record
	others  []record // of cages that live
	roots   map[string]int
	guarded map[string]bool
	plan    *plan
}

func stateDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home := currentAccount().home
		base = filepath.Join(home, ".local/state")
	}
	dir := filepath.Join(base, "agentcage", "placeholders")
	return dir, os.MkdirAll(dir, 0o700)
}

// openRegistry clears up after cages that were killed, and begins a record.
func openRegistry() (*registration, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, hinted(err, "set XDG_STATE_HOME to a directory that can be written", "cannot keep a record of placeholders")
	}
	unlock, err := lockRegistry(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &registration{dir: dir, roots: map[string]int{}, record: record{Started: time.Now()}}
	r.others, err = sweep(dir, "")
	return r, err
}

func lockRegistry(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock the record of placeholders: %w", err)
	}
	return func() { f.Close() }, nil
}

// sweep reads the records of living cages, and clears up after dead ones.
func sweep(dir, own string) ([]record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var live, dead []record
	var files []*os.File
	for i, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || e.Name() == own || i > maxRegistry {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		var rec record
		readErr := json.NewDecoder(&limitedFile{f, maxRecord}).Decode(&rec)
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			live = append(live, rec)
			f.Close()
			continue
		}
		if readErr != nil {
			rec = record{} // nothing of it can be told: it only goes away
		}
		dead, files = append(dead, rec), append(files, f)
	}
	for i, rec := range dead {
		// A gateway that has confined itself may not write everywhere: what
		// it cannot clear up is for the next start.
		if remove(rec, live) {
			os.Remove(files[i].Name())
		}
	}
	for _, f := range files {
		f.Close()
	}
	return live, nil
}

type limitedFile struct {
	f    *os.File
	left int
}

func (l *limitedFile) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("record is too long")
	}
	n, err := l.f.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// begin makes the file of this cage, locked.
func (r *registration) begin() error {
	f, err := os.CreateTemp(r.dir, "cage-*.json")
	if err != nil {
		return hinted(err, "set XDG_STATE_HOME to a directory that can be written", "cannot keep a record of placeholders")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return err
	}
	r.file = f
	return nil
}

func (r *registration) save() error {
	b, err := json.Marshal(r.record)
	if err != nil {
		return err
	}
	// Padded with blanks, so that a shorter text leaves no rest behind.
	if st, err := r.file.Stat(); err == nil {
		for int64(len(b)) < st.Size() {
			b = append(b, ' ')
		}
	}
	_, err = r.file.WriteAt(b, 0)
	return err
}

// place asks for a placeholder, which commit makes.
func (r *registration) place(root mountPath, path string, rule guardRule) (guarded, error) {
	if len(r.record.Entries) >= maxPlaceholders {
		return guarded{}, fmt.Errorf("cannot protect %s: too many placeholders", path)
	}
	r.record.Entries = append(r.record.Entries, placeholder{Root: root.path, Path: path, Dir: rule.dir, Text: hostText[rule.path]})
	return guarded{path: path, dir: rule.dir, json: rule.json, text: hostText[rule.path] != "", placeholder: true}, nil
}

// commit writes down what is wanted, makes it on the host, and writes down
// what was made. It returns what is guarded then: where the caller may not
// write, neither may the agent, and no placeholder is needed.
func (r *registration) commit(all []guarded) ([]guarded, error) {
	if len(r.record.Entries) == 0 {
		return all, nil
	}
	unlock, err := lockRegistry(r.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := r.begin(); err != nil {
		return nil, err
	}
	if err := r.save(); err != nil {
		return nil, err
	}
	made := map[string]fileID{}
	kept := r.record.Entries[:0]
	for _, e := range r.record.Entries {
		if e.Ino != 0 && !stillThere(e) {
			return nil, errMoved
		}
		if e.Ino == 0 {
			id, err := makePlaceholder(e)
			if errors.Is(err, unix.EEXIST) {
				return nil, errMoved
			}
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("cannot protect %s from the agent: %w", e.Path, err)
			}
			e.Dev, e.Ino = id.dev, id.ino
		}
		made[e.Path] = fileID{e.Dev, e.Ino}
		kept = append(kept, e)
	}
	r.record.Entries = kept
	var out []guarded
	for _, g := range all {
		if g.placeholder {
			var ok bool
			if g.id, ok = made[g.path]; !ok {
				continue
			}
		}
		out = append(out, g)
	}
	return out, r.save()
}

// errMoved says that what was found is not what is there now. From commit on
// it cannot happen any more: others see the record before they remove.
var errMoved = errors.New("another cage began or ended in the same directory")

func stillThere(e placeholder) bool {
	dir, name, err := parentOf(e)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Ino == e.Ino && st.Dev == e.Dev
}

// parentOf opens the directory of a placeholder, following no link.
func parentOf(e placeholder) (int, string, error) {
	root, err := unix.Open(e.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(root)
	rel, err := filepath.Rel(e.Root, e.Path)
	if err != nil || !filepath.IsLocal(rel) {
		return -1, "", unix.EINVAL
	}
	dir, err := open(root, filepath.Dir(rel))
	return dir, filepath.Base(rel), err
}

func makePlaceholder(e placeholder) (fileID, error) {
	dir, name, err := parentOf(e)
	if err != nil {
		return fileID{}, err
	}
	defer unix.Close(dir)
	if e.Dir {
		err = unix.Mkdirat(dir, name, 0o755)
	} else {
		var fd int
		fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == nil {
			_, err = unix.Write(fd, []byte(e.Text))
			unix.Close(fd)
		}
	}
	if err != nil {
		return fileID{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fileID{}, err
	}
	return fileID{st.Dev, st.Ino}, nil
}

// adopt tells whether something that exists is the placeholder of another
// cage, which may end before this one: then it belongs to both.
func (r *registration) adopt(path string, id fileID, st os.FileInfo) bool {
	for _, rec := range r.others {
		for _, e := range rec.Entries {
			if !st.IsDir() && st.Size() != int64(len(e.Text)) {
				continue
			}
			if e.Ino == id.ino && e.Dev == id.dev && e.Path == path {
				r.record.Entries = append(r.record.Entries, e)
				return true
			}
		}
	}
	return false
}

// note keeps what the report at the end needs.
func (r *registration) note(p *plan, all []guarded) {
	r.plan = p
	r.guarded = map[string]bool{}
	for _, g := range all {
		r.guarded[g.path] = true
	}
}

// release removes the placeholders that no other cage uses.
func (r *registration) release() error {
	if r == nil || r.file == nil {
		return nil
	}
	unlock, err := lockRegistry(r.dir)
	if err != nil {
		return err
	}
	defer unlock()
	live, err := sweep(r.dir, filepath.Base(r.file.Name()))
	if remove(r.record, live) {
		os.Remove(r.file.Name())
	}
	r.file.Close()
	r.file = nil
	return err
}

// remove takes the placeholders of one record away, inner ones first, unless
// a living cage uses them too or somebody has made something of them. It
// reports whether there is nothing left to try.
func remove(rec record, live []record) (done bool) {
	done = true
	for i := len(rec.Entries) - 1; i >= 0; i-- {
		if e := rec.Entries[i]; !usedBy(live, e) {
			done = removeOne(e, rec.Started) && done
		}
	}
	return done
}

func usedBy(live []record, e placeholder) bool {
	for _, rec := range live {
		for _, o := range rec.Entries {
			if o.Path == e.Path {
				return true
			}
		}
	}
	return false
}

// removeOne deletes a placeholder only while it is the very inode that was
// made, with nothing in it but what we put there. It returns false when it was
// not allowed to.
func removeOne(e placeholder, started time.Time) bool {
	dir, name, err := parentOf(e)
	if err != nil {
		return true
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return true
	}
	same := st.Ino == e.Ino && st.Dev == e.Dev
	if e.Ino == 0 { // killed between the record and the inode
		same = !time.Unix(st.Ctim.Unix()).Before(started)
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case !same:
	case e.Dir && kind == unix.S_IFDIR:
		err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) // refuses one that is not empty
	case !e.Dir && kind == unix.S_IFREG && untouched(dir, name, e.Text, st.Size):
		err = unix.Unlinkat(dir, name, 0)
	}
	return err != unix.EACCES && err != unix.EPERM && err != unix.EROFS
}

// untouched tells whether a placeholder holds nothing, or just our text.
func untouched(dir int, name, text string, size int64) bool {
	if size == 0 {
		return true
	}
	if size != int64(len(text)) {
		return false
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	b := make([]byte, len(text))
	n, err := unix.Read(fd, b)
	return err == nil && string(b[:n]) == text
}
