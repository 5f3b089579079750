package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// interpreter is a Python that can be run in a view that has nothing but its
// files.
type interpreter struct {
	Path  string   // free of links
	Files []string // it and its libraries; links are repeated as such
}

// systemFiles are what programs of the distribution are linked with, and the
// packages that it has for Python.
var systemFiles = []string{
	"/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/lib", "/lib32", "/lib64",
	"/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
}

// leastMinor is the oldest version 3 that the inspectors' interface is kept
// for.
const leastMinor = 9

// askTime is for an interpreter that starts from a cold disk.
const askTime = 20 * time.Second

// about is what an interpreter says of itself. In a virtual environment it
// names the one that it was made from: the packages of a project are the
// agent's to write.
const about = `import sys, json
print(json.dumps([getattr(sys, "_base_executable", None) or sys.executable,
	sys.base_prefix, sys.base_exec_prefix, sys.version_info[0], sys.version_info[1]]))`

// findPython looks for python3 in a PATH. What is found may be a shim or a
// virtual environment: it is asked, outside of any cage, for what it really
// runs. Directories to avoid are not looked into, and no interpreter in them
// is accepted: an agent could have put it there, or could change it.
func findPython(path string, avoid []string) (interpreter, error) {
	reason := errors.New("there is none in PATH")
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(dir, "python3")
		real, err := filepath.EvalSymlinks(file)
		if err != nil || !filepath.IsAbs(dir) {
			continue
		}
		if inside(file, avoid) || inside(real, avoid) {
			reason = fmt.Errorf("%s lies where the agent can write", file)
			continue
		}
		p, err := ask(file, avoid)
		if err == nil {
			return p, nil
		}
		reason = err
	}
	return interpreter{}, &Error{
		Err: fmt.Errorf("cannot find a python3: %w", reason),
		Fix: fmt.Sprintf("install Python 3.%d or newer outside of the project", leastMinor),
	}
}

func ask(file string, avoid []string) (interpreter, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, "-I", "-c", about)
	cmd.Dir = "/" // shims look for settings in the working directory
	out, err := cmd.Output()
	if err != nil {
		return interpreter{}, fmt.Errorf("%s does not run: %w", file, err)
	}
	var path, prefix, execPrefix string
	var major, minor int
	if err := json.Unmarshal(out, &[]any{&path, &prefix, &execPrefix, &major, &minor}); err != nil {
		return interpreter{}, fmt.Errorf("%s is no Python: %w", file, err)
	}
	if major != 3 || minor < leastMinor {
		return interpreter{}, fmt.Errorf("%s is Python %d.%d, too old", file, major, minor)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return interpreter{}, fmt.Errorf("%s names no interpreter: %w", file, err)
	}
	p := interpreter{Path: path, Files: slices.Clone(systemFiles)}
	for _, dir := range []string{prefix, execPrefix} {
		if dir, err = filepath.EvalSymlinks(dir); err == nil {
			p.add(filepath.Join(dir, "lib"), filepath.Join(dir, "lib64"))
		}
	}
	for _, store := range []string{"/nix/store", "/gnu/store"} { // libraries lie beside it there
		if inside(path, []string{store}) {
			p.add(store)
		}
	}
	p.add(path)
	if i := slices.IndexFunc(p.Files, func(f string) bool { return inside(f, avoid) }); i >= 0 {
		return interpreter{}, fmt.Errorf("%s lies where the agent can write", p.Files[i])
	}
	return p, nil
}

// add takes files in that are not shown already.
func (p *interpreter) add(files ...string) {
	for _, f := range files {
		if !inside(f, p.Files) {
			p.Files = append(p.Files, f)
		}
	}
}

// inside reports whether a path is one of the trees or in one of them.
func inside(path string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		if real, err := filepath.EvalSymlinks(tree); err == nil && real != tree && inside(path, []string{real}) {
			return true
		}
		rel, err := filepath.Rel(tree, path)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator))
	})
}
