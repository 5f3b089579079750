package gateway

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/corpus"
)

// slowest is what no content of a few kilobytes may take, on a machine that is
// busy with other things.
const slowest = 10 * time.Second

// FuzzChain sends content through all inspectors together. Whatever it is they
// come to a verdict in time, and none of them fails.
func FuzzChain(f *testing.F) {
	f.Setenv("AGENTCAGE_CORPUS_VALUE", corpus.Known)
	p := corpusPolicy(f)
	cases, err := corpus.Load(os.DirFS(corpusDir))
	if err != nil {
		f.Fatal(err)
	}
	for i, c := range cases {
		last := c.Steps[len(c.Steps)-1]
		if i%16 != 0 || len(last.Contents) == 0 {
			continue // a small seed is mutated further
		}
		if in := last.Contents[0]; len(in.Body) < 4<<10 {
			f.Add(uint8(in.Kind), in.Request.URL.RequestURI(), in.Type, strings.Join(in.Encoding, ","), in.Header.Get("Cookie"), in.Body)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, target, typ, encoding, header string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil || len(body) > 64<<10 || len(target)+len(header) > 16<<10 {
			return
		}
		r := &inspect.Request{Method: "POST", Scheme: "https", Host: hostname.MustParse("api.example.com"), Port: 443, URL: u, ContentLength: -1}
		r.Path, _ = inspect.DecodePath(u.EscapedPath())
		r.Header = http.Header{"Cookie": {header}, "X-" + http.CanonicalHeaderKey(typ): {header}}
		c := &inspect.Content{
			Request: r, Kind: inspect.Kind(kind%7 + 1), Direction: inspect.ToServer, Header: r.Header, Type: typ, Body: body,
		}
		if encoding != "" {
			c.Encoding = strings.Split(encoding, ",")
		}
		began := time.Now()
		for _, v := range []inspect.Verdict{p.chain.Decide(context.Background(), r), p.chain.DecideContent(context.Background(), c)} {
			if strings.Contains(v.Reason, "failed") || strings.Contains(v.Reason, "no verdict") {
				t.Errorf("%+v", v)
			}
			if !v.Allowed() && v.Reason == "" {
				t.Errorf("no reason: %+v", v)
			}
		}
		if took := time.Since(began); took > slowest {
			t.Errorf("it took %v", took)
		}
	})
}
