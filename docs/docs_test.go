// Package docs holds the documentation to what the project really does.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/cage/cagetest"
	"github.com/agentcage/agentcage/internal/config"
)

// TestRulesNameTheirTests holds that each test named in rules.md exists.
func TestRulesNameTheirTests(t *testing.T) {
	data, err := os.ReadFile("rules.md")
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string]bool{}
	for _, e := range cagetest.Index() {
		checks[e.Test] = true
	}
	sources := map[string]string{}
	named := regexp.MustCompile("`([A-Za-z0-9/]+):([A-Za-z0-9_/-]+)`").FindAllStringSubmatch(string(data), -1)
	if len(named) < 100 {
		t.Fatalf("rules.md names %d tests: is its form still what this test reads?", len(named))
	}
	for _, m := range named {
		place, name := m[1], m[2]
		if place == "C" {
			if !checks[name] && name != "theme/check" {
				t.Errorf("the conformance suite has no %s", name)
			}
			continue
		}
		if place == "package" {
			continue // the example at the top of the page
		}
		if _, ok := sources[place]; !ok {
			sources[place] = testSources(t, filepath.Join("..", place))
		}
		if !strings.Contains(sources[place], "func "+name+"(") {
			t.Errorf("%s has no %s", place, name)
		}
	}
}

// testSources joins the tests of a directory.
func testSources(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("no tests in %s", dir)
	}
	var b strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data)
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
