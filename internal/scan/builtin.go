package scan

import (
	"embed"
	"sync"
)

// The licence goes along with what it is for.
//
//go:embed rules/*.txt rules/LICENSE.gitleaks
var ruleFiles embed.FS

// files are the embedded rules, in the order in which they are reported.
var files = []string{"original.txt", "gitleaks.txt", "more.txt"}

// Builtin returns the rules that come with the program. They are shared and
// must not be changed.
var Builtin = sync.OnceValue(func() []*Rule {
	var all []*Rule
	for _, f := range files {
		text, err := ruleFiles.ReadFile("rules/" + f)
		if err != nil {
			panic("scan: " + err.Error())
		}
		rules, err := parseRules(f, string(text))
		if err != nil {
			panic("scan: " + err.Error())
		}
		all = append(all, rules...)
	}
	return all
})
