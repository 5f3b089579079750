package proxy

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
)

var quiet = log.New(io.Discard, "", 0)

var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.RequestURI)
})

// TestEveryWayIsDecided is peer-holes A8 and A10, rules.md 6 and 26: each way
// in, for an allowed and for a refused host, twice on one connection; what
// counts is what the server received.
func TestEveryWayIsDecided(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			w := newWorld(t, only(good), echo)
			rt := way.make(w)
			for i := range 2 {
				path := fmt.Sprintf("/p%d?q=%d", i, i)
				res, body := get(t, rt, way.scheme+"://"+good+path)
				if res.StatusCode != 200 || body != "GET "+good+" "+path || res.ProtoMajor != way.proto {
					t.Fatalf("allowed: %s %s %q", res.Proto, res.Status, body)
				}
				res, body = get(t, rt, way.scheme+"://"+evil+path)
				got := refusalOf(t, body)
				if res.StatusCode != 403 || !got.Blocked || got.Host != evil || got.By != "agentcage" {
					t.Fatalf("blocked: %s %q", res.Status, body)
				}
				r := w.audit.await(t, "the block", func(r audit.Record) bool { return r.ID == got.ID })
				if r.Decision != "blocked" || r.Reason != got.Reason || r.Host != evil || r.Path != "/p"+fmt.Sprint(i) {
					t.Errorf("audit: %+v", r)
				}
			}
			if n := len(w.requests()); n != 2 {
				t.Errorf("the server received %d requests, want 2", n)
			}
			for _, d := range w.dialer.dialed {
				if strings.HasPrefix(d, evil) {
					t.Errorf("%s was dialled", d)
				}
			}
			records := w.audit.all()
			if len(records) != 4 || records[0].Decision != "allowed" {
				t.Errorf("audit: %+v", records)
			}
		})
	}
}

// TestBlockAnswer is the text of the original with the id added.
func TestBlockAnswer(t *testing.T) {
	w := newWorld(t, only(good), echo)
	res, body := get(t, w.viaProxy(), "http://"+evil+"/")
	id := refusalOf(t, body).ID
	want := `{"blocked": true, "reason": "domain not in allowlist: evil.example.net", "host": "evil.example.net", "by": "agentcage", "id": "` + id + `"}`
	if body != want || res.Header.Get("Content-Type") != "application/json" || len(id) != 16 {
		t.Errorf("%v %s", res.Header, body)
	}
	if got := string(audit.BlockBody("é \"\\\n\x01 😀\x7f", "h", "1")); got !=
		`{"blocked": true, "reason": "\u00e9 \"\\\n\u0001 \ud83d\ude00\u007f", "host": "h", "by": "agentcage", "id": "1"}` {
		t.Errorf("escapes: %s", got)
	}
	res, body = get(t, w.viaProxy(), "http://"+evil+"/repo.git/info/refs?service=git-upload-pack")
	if res.Header.Get("Content-Type") != "text/plain" || !refusalOf(t, body).Blocked {
		t.Errorf("git: %v %s", res.Header, body)
	}
}
