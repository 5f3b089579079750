// Package quadlet writes and reads the unit files from which Podman's
// generator makes services (podman-systemd.unit(5)).
//
// A value passes three readers before it is an argument of a program: the
// generator, which splits what it takes for a list; systemd's parser of unit
// files (systemd.syntax(7), systemd.unit(5) "Specifiers"); and its parser of
// command lines (systemd.service(5) "Command lines"). Add escapes for all of
// them, and refuses what one of them cannot carry, so that a value arrives as
// it was given or not at all, and never as another key.
package quadlet

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what is written and read. systemd reads lines of up to 1 MiB; the
// kernel takes arguments of up to 128 KiB (execve(2)).
const (
	maxFile  = 1 << 20
	maxValue = 64 << 10
)

// File is a unit file. Sections and entries keep their order, and a key may be
// there more than once.
type File struct {
	Name     string // "my-cage.container": its ending decides which sections and keys there are
	Sections []*Section

	known sections
	errs  []error // of Add; Bytes returns them
}

// Section is a part of a file under a header of its own.
type Section struct {
	Name    string
	Entries []Entry

	file *File
}

// Entry is a line of a section. Its value is as it stands in the file, escaped.
type Entry struct{ Key, Value string }

// New begins a unit file. A name that is none, or one of a kind that is not
// known here, is an error of Bytes.
func New(name string) *File {
	f := &File{Name: name}
	if !validName(name) {
		f.fail("%q is no name of a unit file", clip(name))
		return f
	}
	if f.known = kinds[path.Ext(name)]; f.known == nil {
		f.fail("cannot write %s: %q is no ending of a unit file", name, path.Ext(name))
	}
	return f
}

// validName keeps to what is the same in a path, a unit's name (systemd.unit(5))
// and a key that names it.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_'
		if !word && (i == 0 || c != '-' && c != '.') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func (f *File) fail(format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf(format, args...))
}

// Section returns the section of a name, which it appends if there is none.
func (f *File) Section(name string) *Section {
	for _, s := range f.Sections {
		if s.Name == name {
			return s
		}
	}
	if f.known != nil && f.known[name] == nil {
		f.fail("%s: there is no section %q in it", f.Name, clip(name))
	}
	s := &Section{Name: name, file: f}
	f.Sections = append(f.Sections, s)
	return s
}

// Add appends a line. How many values a key takes, and how they are escaped,
// the table of keys says. What cannot be written is an error of Bytes.
func (s *Section) Add(key string, values ...string) *Section {
	known := s.file.known[s.Name]
	if known == nil {
		return s // Section or New has said so
	}
	form, ok := known[key]
	if !ok {
		s.file.fail("%s: section %s knows no key %q", s.file.Name, s.Name, clip(key))
		return s
	}
	text, err := form.join(values)
	if err != nil {
		s.file.fail("%s: cannot write %s: %w", s.file.Name, key, err)
		return s
	}
	s.Entries = append(s.Entries, Entry{key, text})
	return s
}

// Fits tells why values cannot be written to a key of a container, or nil: for
// whoever checks a config before anything is made of it.
func Fits(section, key string, values ...string) error {
	f := New("x.container")
	f.Section(section).Add(key, values...)
	return errors.Join(f.errs...)
}

// Get returns the values of every line with a key, as they were given to Add.
func (f *File) Get(section, key string) ([][]string, error) {
	form, ok := f.known[section][key]
	if !ok {
		return nil, fmt.Errorf("%s: section %s knows no key %q", f.Name, section, clip(key))
	}
	var all [][]string
	for _, s := range f.Sections {
		if s.Name != section {
			continue
		}
		for _, e := range s.Entries {
			if e.Key != key {
				continue
			}
			values, err := form.split(e.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: cannot read %s: %w", f.Name, key, err)
			}
			all = append(all, values)
		}
	}
	return all, nil
}

// Bytes is the file's text, or everything that Add could not write.
func (f *File) Bytes() ([]byte, error) {
	if err := errors.Join(f.errs...); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for i, s := range f.Sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", s.Name)
		for _, e := range s.Entries {
			// Whoever made an entry without Add is held to the same.
			if err := f.check(s.Name, e); err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "%s=%s\n", e.Key, e.Value)
		}
	}
	if b.Len() > maxFile {
		return nil, fmt.Errorf("cannot write %s: it is longer than %d bytes", f.Name, maxFile)
	}
	return b.Bytes(), nil
}

// check holds that a line is read as it is meant.
func (f *File) check(section string, e Entry) error {
	form, ok := f.known[section][e.Key]
	if !ok {
		return fmt.Errorf("%s: section %s knows no key %q", f.Name, clip(section), clip(e.Key))
	}
	if err := printable(e.Value); err != nil {
		return fmt.Errorf("%s: %s: %w", f.Name, e.Key, err)
	}
	values, err := form.split(e.Value)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", f.Name, e.Key, err)
	}
	if again, err := form.join(values); err != nil || again != e.Value {
		return fmt.Errorf("%s: %s: %q is not as Add writes it", f.Name, e.Key, clip(e.Value))
	}
	return nil
}

// Parse reads what Bytes wrote. It is stricter than systemd: what has another
// form was changed by somebody else, and is an error with the number of its line.
func Parse(name string, data []byte) (*File, error) {
	f := New(name)
	if err := errors.Join(f.errs...); err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("cannot read %s: it is longer than %d bytes", name, maxFile)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line, ended := strings.CutSuffix(line, "\n")
		if !ended {
			return nil, fmt.Errorf("%s:%d: it does not end with a newline", name, n)
		}
		if err := f.line(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return f, nil
}

func (f *File) line(line string) error {
	if line == "" || line[0] == '#' || line[0] == ';' {
		return nil
	}
	if inner, ok := strings.CutPrefix(line, "["); ok {
		header, ok := strings.CutSuffix(inner, "]")
		if !ok || f.known[header] == nil {
			return fmt.Errorf("%q is no section of it", clip(line))
		}
		if slices.ContainsFunc(f.Sections, func(s *Section) bool { return s.Name == header }) {
			return fmt.Errorf("section %s is there already", header)
		}
		f.Section(header)
		return nil
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return fmt.Errorf("%q is neither a section nor a key", clip(line))
	}
	if len(f.Sections) == 0 {
		return errors.New("a key stands before the first section")
	}
	s := f.Sections[len(f.Sections)-1]
	e := Entry{key, value}
	if err := f.check(s.Name, e); err != nil {
		return err
	}
	s.Entries = append(s.Entries, e)
	return nil
}

// printable refuses what could end a line, or is read differently by different
// readers: control and format characters, line separators, and bytes that are
// no UTF-8.
func printable(s string) error {
	if len(s) > maxValue {
		return fmt.Errorf("it is longer than %d bytes", maxValue)
	}
	if !utf8.ValidString(s) {
		return errors.New("it is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			return fmt.Errorf("it has a control character (%U)", r)
		}
	}
	return nil
}

// clip keeps messages short whatever they quote.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
