package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v4"
)

// Load reads the config file at path. An error is of type Errors and holds
// everything that is wrong; a file that cannot be read is one *Error without
// a line, which wraps the cause.
//
// Relative paths in the file are taken from its own folder, and a leading ~
// is the home directory as os.UserHomeDir has it: $HOME is the only thing of
// the environment that is read, and only for that (rule 82).
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Errors{{File: path, Why: err.Error(), Hint: hintFile(err), Err: err}}
	}
	return Parse(path, data)
}

func hintFile(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is the path right?"
	case errors.Is(err, errTooBig):
		return "a config is a page of text; is this the right file?"
	}
	return ""
}

var errTooBig = fmt.Errorf("it is larger than %d bytes", maxFile)

// readFile opens path once and refuses everything but ordinary files, since
// a pipe or a device would block or never end.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not an ordinary file")
	}
	if err != nil {
		return nil, cause(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(data) > maxFile {
		return nil, errTooBig
	}
	return data, nil
}

// cause takes the path out of an error that is printed beside the path.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Parse reads data as the config file called file; see Load. It reads no
// other file, and asks for the home directory only when a path begins with ~.
func Parse(file string, data []byte) (*Config, error) {
	if len(data) > maxFile {
		return nil, Errors{{File: file, Why: errTooBig.Error(), Hint: hintFile(errTooBig), Err: errTooBig}}
	}
	sum := sha256.Sum256(data)
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	d := newDecoder(file, data)
	c := Default()
	c.File, c.Sum = file, hex.EncodeToString(sum[:])
	if d.checkBytes(data) {
		d.config(d.parseYAML(data), c)
	}
	if len(d.errs) > 0 {
		return nil, d.errs.sort()
	}
	c.warnings = d.notes
	return c, nil
}

func newDecoder(file string, data []byte) *decoder {
	return &decoder{
		file:  file,
		lines: strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"),
		docs:  Keys(),
		where: make(map[string]value),
		dir:   filepath.Dir(file),
		home:  os.UserHomeDir,
	}
}

// config reads the whole tree into c. root is nil for an empty document.
func (d *decoder) config(root *yaml.Node, c *Config) {
	const hint = `begin with a line such as "name: my-cage"`
	if len(d.errs) > 0 {
		return // the parser could not read it
	}
	if root == nil {
		d.add(Position{Key: "name", Line: 1, Column: 1}, 1, "the file is empty, and a cage needs a name", hint)
		return
	}
	v := value{n: root}
	if root.Kind != yaml.MappingNode || placeholder(root) {
		d.add(Position{Key: "name", Line: root.Line, Column: root.Column}, 1, "the file is no map of keys, and a cage needs a name", hint)
		return
	}
	d.walk(v, 0)
	if d.nodes > maxNodes {
		return
	}
	fields(d, v, topKeys, c)
	if _, ok := d.where["name"]; !ok {
		d.add(Position{Key: "name", Line: root.Line, Column: root.Column}, 1, "it is missing, and a cage needs a name", hint)
	}
	d.finish(c)
}

// finish checks what concerns more than one key.
func (d *decoder) finish(c *Config) {
	top, hasTop := d.where["dns_servers"]
	if other, ok := d.where["upstream.dns_servers"]; ok && hasTop {
		d.fail(later(top, other), "dns_servers and upstream.dns_servers are the same setting", "keep upstream.dns_servers")
	} else if hasTop {
		d.warn(top.position(), "dns_servers is the older name of upstream.dns_servers")
	}
	if at, ok := d.where["log_allowed"]; ok {
		text := "log_allowed is the older name of logging.allowed_requests"
		if _, both := d.where["logging.allowed_requests"]; both {
			text += ", which is set and wins"
		}
		d.warn(at.position(), text)
	}
	d.needImage(c)
	d.exceptions(c)
	byLine := func(a, b Position) int { return a.Line - b.Line }
	slices.SortStableFunc(d.notes, func(a, b Warning) int { return byLine(a.Position, b.Position) })
}

// needImage holds the original's rule that a container has an image, where
// the file asks for one.
func (d *decoder) needImage(c *Config) {
	inContainer := func(e *Error) bool { return strings.HasPrefix(e.Key, "container") }
	if c.Container.Image != "" || d.where["container.image"].n != nil || slices.ContainsFunc(d.errs, inContainer) {
		return
	}
	at, named := d.where["container"]
	switch c.Isolation {
	case "container", "firecracker":
		if !named {
			at = d.where["isolation"]
		}
	case "process":
		return
	default:
		if !named || reflect.DeepEqual(c.Container, Default().Container) {
			return
		}
	}
	at.path = "container.image"
	d.fail(at, "it is missing, and a container needs an image", `add "image: IMAGE" under container`)
}

func later(a, b value) value {
	if a.n.Line > b.n.Line || a.n.Line == b.n.Line && a.n.Column > b.n.Column {
		return a
	}
	return b
}
