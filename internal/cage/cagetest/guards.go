//go:build linux

package cagetest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// guarded are paths of a working directory that programs of the host run or
// obey later.
var guarded = []string{
	".git/hooks/pre-commit", ".git/config", ".git/config.worktree", ".git/info/attributes",
	".envrc", ".vscode/tasks.json", ".vscode/settings.json", ".idea/workspace.xml", ".husky/pre-commit",
	".claude/settings.json", ".claude/settings.local.json", ".mcp.json",
}

// repository makes a working directory that is a git repository.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\n\tbare = false\n", ".git/hooks/post-update.sample": "#!/bin/sh\n",
		".git/objects/info/.keep": "", ".git/refs/heads/.keep": "", ".git/info/exclude": "", "main.go": "package main\n",
	} {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(content), 0o644))
	}
	return dir
}

func at(dir string) option { return withSpec(func(s *cage.Spec) { s.Dir = dir }) }

// tree lists everything below a directory with its content.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(p, dir)
		if d.Type().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " = " + string(b)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		out = append(out, line)
		return nil
	}))
	return out
}

// same fails when a directory has changed.
func same(t *testing.T, dir string, before []string) {
	t.Helper()
	after := tree(t, dir)
	for _, l := range after {
		if !slices.Contains(before, l) {
			t.Errorf("left behind on the host: %s", l)
		}
	}
	for _, l := range before {
		if !slices.Contains(after, l) {
			t.Errorf("gone from the host: %s", l)
		}
	}
}

// end ends a cage and waits until everything of it is gone.
func (i *inside) end() {
	i.t.Helper()
	_ = i.p.Kill() // it may have ended
	_, _ = i.p.Wait()
}

var guardChecks = []check{
	{"files-that-the-host-runs", "85 E1 E3", func(t *testing.T, s *suite) {
		dir := repository(t)
		in := s.cage(t, at(dir))
		for _, g := range guarded {
			in.ask(wire.Ask{Do: "mkdir", Path: filepath.Dir(g)})
			in.ask(wire.Ask{Do: "write", Path: g, Data: []byte("planted")})
			in.ask(wire.Ask{Do: "write", Path: g + ".new", Data: []byte("planted")})
			in.ask(wire.Ask{Do: "rename", Path: g + ".new", To: g})
		}
		in.end()
		for _, g := range guarded {
			if b, err := os.ReadFile(filepath.Join(dir, g)); err == nil && strings.Contains(string(b), "planted") {
				t.Errorf("%s was planted", g)
			}
		}
		for _, l := range tree(t, dir) {
			if strings.Contains(l, "planted") && strings.HasPrefix(l, "/.git/hooks") || strings.HasPrefix(l, "/.husky") || strings.HasPrefix(l, "/.vscode") {
				t.Errorf("planted: %s", l)
			}
		}
	}},
	{"control-ordinary-files", "85 control", func(t *testing.T, s *suite) {
		dir := repository(t)
		in := s.cage(t, at(dir))
		for _, p := range []string{"main.go", "new.go", ".git/objects/ab/cdef", ".git/refs/heads/topic", ".git/index", ".git/HEAD", "deep/er/file"} {
			in.works(wire.Ask{Do: "mkdir", Path: filepath.Dir(p)})
			in.works(wire.Ask{Do: "write", Path: p, Data: []byte("work")})
		}
		in.end()
		for _, p := range []string{"main.go", ".git/index", ".git/refs/heads/topic", "deep/er/file"} {
			if b, err := os.ReadFile(filepath.Join(dir, p)); err != nil || string(b) != "work" {
				t.Errorf("%s on the host: %q %v", p, b, err)
			}
		}
	}},
	{"existing-ones-are-read-only", "85 86", func(t *testing.T, s *suite) {
		dir := repository(t)
		for _, g := range guarded {
			must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(g)), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, g), []byte("the user's"), 0o644))
		}
		before := tree(t, dir)
		in := s.cage(t, at(dir))
		for _, g := range guarded {
			in.refused(wire.Ask{Do: "write", Path: g, Data: []byte("planted")})
			in.refused(wire.Ask{Do: "truncate", Path: g})
			in.refused(wire.Ask{Do: "remove", Path: g})
			in.refused(wire.Ask{Do: "rename", Path: g, To: "moved"})
			in.refused(wire.Ask{Do: "chmod", Path: g, Nums: []int{0o777}})
		}
		in.end()
		same(t, dir, before)
	}},
	{"nothing-left-behind", "86 E1", func(t *testing.T, s *suite) {
		for _, kind := range []string{"repository", "empty", "worktree"} {
			dir := t.TempDir()
			switch kind {
			case "repository":
				dir = repository(t)
			case "worktree":
				must(t, os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: /nonexistent/elsewhere\n"), 0o644))
			}
			before := tree(t, dir)
			for range 2 { // start, stop, start again
				in := s.cage(t, at(dir))
				in.works(wire.Ask{Do: "cwd"})
				in.end()
				same(t, dir, before)
			}
		}
	}},
	{"parent-renamed-away", "85 E1", func(t *testing.T, s *suite) {
		dir := repository(t)
		must(t, os.MkdirAll(filepath.Join(dir, ".claude"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, ".claude", "settings.json"), []byte("{}"), 0o644))
		before := tree(t, dir)
		in := s.cage(t, at(dir))
		for _, d := range []string{".git", ".git/hooks", ".claude", ".claude/settings.json"} {
			in.refused(wire.Ask{Do: "rename", Path: d, To: "moved-" + filepath.Base(d)})
		}
		in.ask(wire.Ask{Do: "remove", Path: ".git/hooks"})
		in.ask(wire.Ask{Do: "mkdir", Path: ".git/hooks"})
		in.refused(wire.Ask{Do: "write", Path: ".git/hooks/pre-commit", Data: []byte("planted")})
		in.refused(wire.Ask{Do: "write", Path: ".claude/settings.json", Data: []byte("planted")})
		in.end()
		same(t, dir, before)
	}},
	{"hard-link", "85 E1 E2", func(t *testing.T, s *suite) {
		// Another name for the same file would be writable.
		dir := repository(t)
		in := s.cage(t, at(dir))
		r := in.ask(wire.Ask{Do: "link", Path: ".git/config", To: "other-name"})
		if r.OK() {
			in.ask(wire.Ask{Do: "write", Path: "other-name", Data: []byte("planted")})
		}
		in.end()
		if b, err := os.ReadFile(filepath.Join(dir, ".git/config")); err != nil || strings.Contains(string(b), "planted") {
			t.Errorf(".git/config is %q %v", b, err)
		}
	}},
	{"link-in-place-of-a-guarded-path", "86 E2", func(t *testing.T, s *suite) {
		// A link that is there before the cage starts must neither break the
		// start nor lead the guard out of the tree.
		outside := t.TempDir()
		must(t, os.WriteFile(outside+"/tasks.json", []byte("the user's"), 0o644))
		dir := t.TempDir()
		must(t, os.Symlink(outside, filepath.Join(dir, ".vscode")))
		must(t, os.Symlink("/nonexistent", filepath.Join(dir, ".envrc")))
		before, beforeOut := tree(t, dir), tree(t, outside)
		in, err := s.start(t, at(dir))
		if err == nil {
			in.ask(wire.Ask{Do: "write", Path: ".vscode/tasks.json", Data: []byte("planted")})
			in.end()
		}
		same(t, dir, before)
		same(t, outside, beforeOut)
	}},
	{"link-made-inside", "86 E2", func(t *testing.T, s *suite) {
		// The agent makes a link where a guard is; clean-up follows none.
		outside := t.TempDir()
		must(t, os.WriteFile(outside+"/keep", nil, 0o644))
		dir := repository(t)
		in := s.cage(t, at(dir))
		for _, g := range []string{".vscode", ".envrc", ".husky", ".idea"} {
			in.ask(wire.Ask{Do: "remove", Path: g})
			in.ask(wire.Ask{Do: "symlink", Path: g, To: outside})
		}
		in.end()
		if _, err := os.Stat(outside + "/keep"); err != nil {
			t.Errorf("clean-up followed a link: %v", err)
		}
	}},
	{"nested-repositories", "85", func(t *testing.T, s *suite) {
		dir := repository(t)
		sub := filepath.Join(dir, "vendor", "lib")
		must(t, os.MkdirAll(filepath.Join(sub, ".git", "hooks"), 0o755))
		must(t, os.WriteFile(filepath.Join(sub, ".git", "config"), []byte("[core]\n"), 0o644))
		in := s.cage(t, at(dir))
		in.refused(wire.Ask{Do: "write", Path: "vendor/lib/.git/hooks/pre-commit", Data: []byte("planted")})
		in.refused(wire.Ask{Do: "write", Path: "vendor/lib/.git/config", Data: []byte("planted")})
		in.refused(wire.Ask{Do: "rename", Path: "vendor/lib", To: "vendor/other"})
	}},
	{"unguarded-by-the-user", "85", func(t *testing.T, s *suite) {
		dir := repository(t)
		must(t, os.MkdirAll(filepath.Join(dir, ".vscode"), 0o755))
		in := s.cage(t, at(dir), withSpec(func(spec *cage.Spec) { spec.Unguarded = []string{".vscode"} }))
		in.works(wire.Ask{Do: "write", Path: ".vscode/tasks.json", Data: []byte("wanted")})
		in.refused(wire.Ask{Do: "write", Path: ".git/hooks/pre-commit", Data: []byte("planted")})
		in.end()
		if b, err := os.ReadFile(filepath.Join(dir, ".vscode/tasks.json")); err != nil || string(b) != "wanted" {
			t.Errorf("on the host: %q %v", b, err)
		}
	}},
	{"two-cages-in-one-directory", "103 86", func(t *testing.T, s *suite) {
		dir := repository(t)
		before := tree(t, dir)
		one, two := s.cage(t, at(dir)), s.cage(t, at(dir))
		one.end()
		two.refused(wire.Ask{Do: "write", Path: ".git/hooks/pre-commit", Data: []byte("planted")})
		two.ask(wire.Ask{Do: "mkdir", Path: ".vscode"})
		two.refused(wire.Ask{Do: "write", Path: ".vscode/tasks.json", Data: []byte("planted")})
		two.end()
		same(t, dir, before)
	}},
	{"killed-cage-leaves-nothing", "86 102", func(t *testing.T, s *suite) {
		dir := repository(t)
		before := tree(t, dir)
		in := s.cage(t, at(dir))
		must(t, in.p.Kill())
		if st, _ := in.p.Wait(); st.Code == 0 {
			t.Errorf("a killed cage ended with %+v", st)
		}
		same(t, dir, before)
	}},
	{"case-and-dots", "85", func(t *testing.T, s *suite) {
		dir := repository(t)
		in := s.cage(t, at(dir))
		for _, p := range []string{"./.git/./hooks/../hooks/pre-commit", ".git//hooks/pre-commit", fmt.Sprintf("%s/.git/hooks/pre-commit", dir), "/proc/self/cwd/.git/hooks/pre-commit"} {
			in.refused(wire.Ask{Do: "write", Path: p, Data: []byte("planted")})
		}
	}},
}
