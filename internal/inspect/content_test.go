package inspect

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
)

func contentOf(t testing.TB, rawURL string, header http.Header, body string) *Content {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostname.Parse(u.Hostname())
	if err != nil {
		t.Fatal(err)
	}
	return &Content{
		Request: &Request{Method: "POST", Scheme: "https", Host: host, Port: 443, URL: u, Header: header},
		Kind:    KindRequest, Direction: ToServer, Header: header,
		Type: header.Get("Content-Type"), Encoding: header["Content-Encoding"], Body: []byte(body),
	}
}

// TestTexts is rules 37 and 42: everything that the sender chose is a text, each
// header line by itself, and decoded.
func TestTexts(t *testing.T) {
	const secret = "AKIAQWERTY234567ABCD"
	base64 := "QUtJQVFXRVJUWTIzNDU2N0FCQ0Q"
	percent := "%41KIAQWERTY234567ABC%44"
	plain := contentOf(t, "https://api.example.test/v1/x?a=b", http.Header{"Accept": {"*/*"}}, "nothing")
	texts, err := plain.Texts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if len(text.Tree.Layers) != 1 {
			t.Errorf("%q has %d layers", text.Tree.Layers[0].Data, len(text.Tree.Layers))
		}
	}
	for name, c := range map[string]struct {
		url    string
		header http.Header
		body   string
		place  Place
		text   string
	}{
		"segment":        {url: "/v1/" + base64 + "/x", place: PlaceSegment, text: secret},
		"segment escape": {url: "/v1/" + percent + ";p=1", place: PlaceSegment, text: secret},
		"path":           {url: "/AKIA/QWERTY", place: PlacePath, text: "/AKIA/QWERTY"},
		"query value":    {url: "/?a=" + percent, place: PlaceQueryValue, text: secret},
		"query plus":     {url: "/?a=-----BEGIN+RSA+PRIVATE+KEY-----", place: PlaceQueryValue, text: "BEGIN RSA PRIVATE KEY"},
		"query name":     {url: "/?" + percent + "=1", place: PlaceQueryName, text: secret},
		"query alone":    {url: "/?" + base64, place: PlaceQueryName, text: secret},
		"header":         {header: http.Header{"X-A": {"x", base64}}, place: PlaceHeader, text: secret},
		"header name":    {header: http.Header{"X-" + base64: {""}}, place: PlaceHeaderName, text: secret},
		"basic":          {header: http.Header{"Authorization": {"Basic dXNlcjpwdw=="}}, place: PlaceHeader, text: "user:pw"},
		"cookie":         {header: http.Header{"Cookie": {"a=b; c=" + base64}}, place: PlaceCookie, text: secret},
		"body":           {body: `{"a":"\u0041KIAQWERTY234567ABCD"}`, place: PlaceBody, text: secret},
		"method":         {place: PlaceMethod, text: "POST"},
		"host":           {place: PlaceHost, text: "api.example.test"},
	} {
		header := c.header
		if header == nil {
			header = http.Header{}
		}
		texts, err := contentOf(t, "https://api.example.test"+c.url, header, c.body).Texts(context.Background())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		found := false
		for _, text := range texts {
			for _, l := range text.Tree.Layers {
				found = found || text.Place == c.place && strings.Contains(string(l.Data), c.text)
			}
		}
		if !found {
			t.Errorf("%s: %q is in no text of its place", name, c.text)
		}
	}
}

// TestTextsThatCannotBeRead holds that one of them does not hide the others.
func TestTextsThatCannotBeRead(t *testing.T) {
	c := contentOf(t, "https://api.example.test/x", http.Header{"Content-Encoding": {"gzip"}, "X-A": {"b"}}, "not gzip")
	texts, err := c.Texts(context.Background())
	if err == nil {
		t.Error("a body that does not match its coding is no error")
	}
	if len(texts) < 4 {
		t.Errorf("only %d texts", len(texts))
	}
	if again, err2 := c.Texts(context.Background()); len(again) != len(texts) || err2 != err {
		t.Error("the second call says something else")
	}
}

func usualRequest(t testing.TB) *Content {
	return contentOf(t, "https://api.example.test/v1/chat/completions?stream=true&limit=20", http.Header{
		"Accept": {"application/json"}, "Accept-Encoding": {"gzip, deflate, br, zstd"}, "Connection": {"keep-alive"},
		"Authorization": {"Bearer {{PLACEHOLDER}}"}, "Content-Type": {"application/json"}, "Content-Length": {"10240"},
		"User-Agent": {"Some-Client/1.2.3 (Linux; x86_64)"}, "X-Stainless-Lang": {"js"}, "X-Stainless-Os": {"Linux"},
		"Cookie": {"theme=dark; lang=en"},
	}, "")
}

func BenchmarkTexts(b *testing.B) {
	b.ReportAllocs()
	usual := usualRequest(b)
	for b.Loop() {
		c := *usual
		if _, err := c.Texts(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
