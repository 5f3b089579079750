package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const text = "sk-very-\x00secret\n\"value\"-é"

func value(t *testing.T) Value {
	t.Helper()
	v, err := New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestNeverPrinted tries every way in which Go programs print by accident.
func TestNeverPrinted(t *testing.T) {
	v := value(t)
	type outer struct {
		Exported Value
		hidden   Value
		Pointer  *Value
		List     []Value
		Map      map[string]Value
		Any      any
	}
	o := outer{v, v, &v, []Value{v}, map[string]Value{"k": v}, v}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%U", "%b", "%t", "%p", "%10v", "%-5s", "%T"} {
		for _, x := range []any{v, &v, o, &o, []any{v}, struct{ v Value }{v}, struct{ v *Value }{&v}} {
			fmt.Fprintf(&out, verb+"\n", x)
		}
	}
	for _, x := range []any{v, &v, o, []Value{v}, map[string]Value{"k": v}} {
		b, err := json.Marshal(x)
		if err != nil {
			t.Errorf("json of %T: %v", x, err)
		}
		out.Write(b)
		b, _ = xml.Marshal(x)
		out.Write(b)
	}
	fmt.Fprintln(&out, fmt.Errorf("cannot use %w or %v", errors.New("x"), v))
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Error("failed", "value", v, "pointer", &v, "outer", o)
	}
	if err := gob.NewEncoder(&out).Encode(v); err == nil {
		t.Error("gob encoded it")
	}
	forms := []string{"sk-very", "secret\n", fmt.Sprintf("%x", "sk-very"), fmt.Sprintf("%X", "sk-very"), "115 107 45", "c2stdmVye", "'s' 'k'", "73 6b", "0x73, 0x6b", "U+0073 U+006B"}
	for _, form := range forms {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is in what was printed", form)
		}
	}
	if !strings.Contains(out.String(), Mark) {
		t.Error("the mark is not in what was printed")
	}
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want error
	}{{0, ErrShort}, {2, ErrShort}, {7, ErrShort}, {8, nil}, {MaxLength, nil}, {MaxLength + 1, ErrLong}} {
		if _, err := New(make([]byte, tt.n)); err != tt.want {
			t.Errorf("%d bytes: %v, want %v", tt.n, err, tt.want)
		}
	}
}

func TestValue(t *testing.T) {
	b := []byte(text)
	v, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	b[0] = 'X'
	if got := string(v.RevealBytes()); got != text {
		t.Errorf("it shares memory with its argument: %q", got)
	}
	v.RevealBytes()[0] = 'X'
	v.Reveal(func(b []byte) {
		if string(b) != text {
			t.Errorf("it shares memory with what it returned: %q", b)
		}
	})
	other, _ := New([]byte("another value"))
	same := value(t)
	if v.Equal(other) || !v.Equal(same) || (Value{}).Equal(Value{}) || v.Equal(Value{}) {
		t.Error("Equal is wrong")
	}
	if v.Len() != len(text) || v.IsZero() || !(Value{}).IsZero() || (Value{}).Len() != 0 {
		t.Error("Len or IsZero is wrong")
	}
	(Value{}).Reveal(func([]byte) { t.Error("no value was revealed") })
}

func TestPlaceholder(t *testing.T) {
	p, q := NewPlaceholder("API_KEY"), NewPlaceholder("API_KEY")
	if p == q {
		t.Error("two placeholders are the same")
	}
	if env, ok := ParsePlaceholder(p); !ok || env != "API_KEY" {
		t.Errorf("%s is read as %q, %v", p, env, ok)
	}
	if err := CheckPlaceholder(p); err != nil || Guessable(p) {
		t.Errorf("%s: %v", p, err)
	}
	random := strings.Repeat("0f", 16)
	for _, s := range []string{
		"", "agentcage:secret:", "agentcage:secret:A:" + random[1:], "agentcage:secret:A:" + random + "0", "agentcage:secret::" + random,
		"agentcage:secret:A:" + strings.ToUpper(random), "agentcage:secret:A-B:" + random, "agentcage:secret:1A:" + random, "x" + p, p + ":",
		"agentcage:secret:A:B:" + random[2:], "AGENTCAGE:secret:A:" + random, "{{API_KEY}}",
	} {
		if env, ok := ParsePlaceholder(s); ok || !Guessable(s) {
			t.Errorf("%q is read as %q", s, env)
		}
	}
}

func TestCheckPlaceholder(t *testing.T) {
	for _, s := range []string{"{{API_KEY}}", "{{K}}", "sk-PLACEHOLDER", "$KEY[0]", "__TOKEN__"} {
		if err := CheckPlaceholder(s); err != nil || !Guessable(s) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "{K}", "with space", "a\nbcde", `quo"ted`, "perc%41ent", "a&bcde", "a+bcde", "a\\bcde", "é-placeholder", "a/bcde", strings.Repeat("x", 513)} {
		if CheckPlaceholder(s) == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzParsePlaceholder(f *testing.F) {
	f.Add("agentcage:secret:A:" + strings.Repeat("0f", 16))
	f.Add("{{A}}")
	f.Fuzz(func(t *testing.T, s string) {
		env, ok := ParsePlaceholder(s)
		if ok && (!strings.HasPrefix(s, prefix+env+":") || len(s) != len(prefix)+len(env)+1+digits) {
			t.Errorf("%q is read as %q", s, env)
		}
		if ok && len(s) <= maxPlaceholder && CheckPlaceholder(s) != nil {
			t.Errorf("%q is refused", s)
		}
	})
}
