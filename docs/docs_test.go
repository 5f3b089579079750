// Package docs holds the documentation to what the project really does.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
)

// TestRulesNameTheirTests holds that each test named in rules.md exists.
func TestRulesNameTheirTests(t *testing.T) {
	data, err := os.ReadFile("rules.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	named := regexp.MustCompile("`([a-z0-9/]+):((?:Test|Fuzz)[A-Za-z0-9_]+)((?:/[a-z0-9-]+)*)`").FindAllStringSubmatch(string(data), -1)
	if len(named) < 100 {
		t.Fatalf("rules.md names %d tests: is its form still what this test reads?", len(named))
	}
	for _, m := range named {
		dir, fn, sub := m[1], m[2], m[3]
		src, ok := sources[dir]
		if !ok {
			src = testSources(t, filepath.Join("..", dir))
			sources[dir] = src
		}
		if !strings.Contains(src, "func "+fn+"(") {
			t.Errorf("%s has no %s", dir, fn)
		}
		for part := range strings.SplitSeq(strings.Trim(sub, "/"), "/") {
			if part != "" && !strings.Contains(src, `"`+part+`"`) {
				t.Errorf("%s:%s has no case %q", dir, fn, part)
			}
		}
	}
}

// testSources joins the Go files of a directory. The conformance suite counts
// as part of the tests that run it.
func testSources(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, d := range []string{dir, filepath.Join("..", "internal", "cage", "cagetest")} {
		files, err := filepath.Glob(filepath.Join(d, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no Go files in %s", d)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(data)
		}
	}
	return b.String()
}

// TestSnippets reads every cage.yaml in the documentation as agentcage does.
func TestSnippets(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(# cage.yaml\n.*?)```")
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range block.FindAllStringSubmatch(string(data), -1) {
			found++
			if _, err := config.Parse(path, []byte(m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("%d snippets, %v", found, err)
	}
}

// TestLinks follows every relative link of the documentation.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, pattern := range []string{"../*.md", "*.md", "adr/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files match %s", pattern)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(data), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(f), m[1])); err != nil {
					t.Errorf("%s links to %s, which is not there", f, m[1])
				}
			}
		}
	}
}
