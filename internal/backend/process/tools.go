package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// toolRoots maps a directory of PATH, relative to the home directory, to what
// its programs need beside it. The longest matching prefix counts. No entry
// names a directory in which a tool keeps credentials or a cache that it
// writes to: those are the cage's own, private and empty.
var toolRoots = []struct {
	prefix string
	roots  []string
}{
	{".cargo/bin", []string{".cargo/bin", ".cargo/env", ".rustup"}},
	{".rustup", []string{".rustup"}},
	{".nvm", []string{".nvm"}},
	{".fnm", []string{".fnm"}},
	{".local/share/fnm", []string{".local/share/fnm"}},
	{".volta", []string{".volta"}},
	{".pyenv", []string{".pyenv"}},
	{".rbenv", []string{".rbenv"}},
	{".rvm", []string{".rvm"}},
	{".nodenv", []string{".nodenv"}},
	{".goenv", []string{".goenv"}},
	{".jenv", []string{".jenv"}},
	{".sdkman", []string{".sdkman"}},
	{".asdf", []string{".asdf", ".tool-versions", ".asdfrc"}},
	{".local/share/mise", []string{".local/share/mise", ".config/mise/config.toml", ".tool-versions"}},
	{".local/share/rtx", []string{".local/share/rtx"}},
	{".bun/bin", []string{".bun/bin"}},
	{".deno/bin", []string{".deno/bin"}},
	{"go/bin", []string{"go/bin"}},
	{"sdk", []string{"sdk"}},
	{".ghcup/bin", []string{".ghcup"}},
	{".juliaup/bin", []string{".juliaup", ".julia/juliaup"}},
	{".dotnet", []string{".dotnet"}},
	{".local/share/pnpm", []string{".local/share/pnpm"}},
	{".npm-global", []string{".npm-global"}},
	{".yarn", []string{".yarn/bin"}},
	{"miniconda3", []string{"miniconda3"}},
	{"anaconda3", []string{"anaconda3"}},
	{"miniforge3", []string{"miniforge3"}},
	{".nix-profile", []string{".nix-profile"}},
	{".local/bin", []string{".local/bin"}},
}

// linkedTools bounds how many links of tool directories are followed.
const linkedTools = 2000

// toolDirs lists what to show of the home directory so that programs which
// PATH finds there run. Nothing that holds credentials is in it, whatever
// PATH says.
func toolDirs(home, path string, creds *credentials) []string {
	var dirs []string
	add := func(p string) {
		real, err := resolve(p)
		if err != nil || !within(real, home) || real == home || len(creds.conflicts(real)) > 0 {
			return
		}
		if real != p && !within(p, home) {
			return
		}
		if !slices.Contains(dirs, real) {
			dirs = append(dirs, real)
		}
	}
	for dir := range strings.SplitSeq(path, ":") {
		rel, ok := strings.CutPrefix(filepath.Clean(dir), home+"/")
		if !ok {
			continue
		}
		roots := rootsOf(rel)
		for _, r := range roots {
			add(filepath.Join(home, r))
		}
		for _, target := range linkTargets(filepath.Join(home, rel), home) {
			add(target)
		}
	}
	return outermost(dirs)
}

func rootsOf(rel string) []string {
	best, roots := "", []string{rel}
	for _, t := range toolRoots {
		if within(rel, t.prefix) && len(t.prefix) > len(best) {
			best, roots = t.prefix, t.roots
		}
	}
	return roots
}

// linkTargets follows the links of a directory of programs to where the
// programs are installed: an application below ~/.local/share is shown whole,
// anything else only as the file that is meant.
func linkTargets(dir, home string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(linkedTools)
	var targets []string
	for _, e := range entries {
		if e.Type()&os.ModeSymlink == 0 {
			continue
		}
		real, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil || !within(real, home) || within(real, dir) {
			continue
		}
		if app, ok := strings.CutPrefix(real, home+"/.local/share/"); ok && strings.Contains(app, "/") {
			name, _, _ := strings.Cut(app, "/")
			real = filepath.Join(home, ".local/share", name)
		}
		if !slices.Contains(targets, real) {
			targets = append(targets, real)
		}
	}
	return targets
}

// outermost drops paths that lie below others.
func outermost(paths []string) []string {
	slices.Sort(paths)
	var out []string
	for _, p := range paths {
		if !slices.ContainsFunc(out, func(o string) bool { return within(p, o) }) {
			out = append(out, p)
		}
	}
	return out
}
