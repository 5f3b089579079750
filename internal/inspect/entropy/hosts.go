package entropy

import (
	"maps"
	"strings"

	"github.com/agentcage/agentcage/internal/hostname"
)

// signed are the parameters of signed URLs, by the zone of the host: they are
// signatures, and so random.
var signed = map[string][]string{
	"cloudfront.net":         {"Policy", "Signature", "Key-Pair-Id"},
	"xethub.hf.co":           {"Policy", "Signature", "Key-Pair-Id", "X-Amz-Signature", "X-Amz-Credential"},
	"amazonaws.com":          {"X-Amz-Signature", "X-Amz-Credential"},
	"storage.googleapis.com": {"X-Goog-Signature"},
	"blob.core.windows.net":  {"sig", "se", "sp"},
}

// maxSigned is the most that such a parameter holds, in characters.
const maxSigned = 4 << 10

// params says which query parameters of a host may be random: names in lower
// case, "*" for all.
type params map[hostname.Name]map[string]bool

// newParams returns the built-in parameters with those of the config, which
// replace the built-in ones of a host that it names.
func newParams(own map[hostname.Name][]string) params {
	lists := make(map[hostname.Name][]string)
	for host, names := range signed {
		if n, err := hostname.Parse(host); err == nil {
			lists[n] = names
		}
	}
	maps.Copy(lists, own)
	p := make(params)
	for host, names := range lists {
		p[host] = make(map[string]bool)
		for _, n := range names {
			p[host][strings.ToLower(n)] = true
		}
	}
	return p
}

// all reports whether no part of the URLs of a host is looked at.
func (p params) all(host hostname.Name) bool { return p.allows(host, "*") }

// allows reports whether a parameter of a host may be random.
func (p params) allows(host hostname.Name, name string) bool {
	name = strings.ToLower(name)
	for n := host; !n.IsZero(); n = n.Parent() {
		if p[n][name] {
			return true
		}
	}
	return false
}
