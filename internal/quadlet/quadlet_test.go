package quadlet

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBytes(t *testing.T) {
	f := New("my-cage.container")
	f.Section("Unit").Add("Description", "100% of $HOME").Add("Requires", "a.service", "b.service")
	f.Section("Container").
		Add("Image", "localhost/agentcage:0123").
		Add("Environment", "A", "x").
		Add("Environment", "B", `two words, "quotes", a\b, 5%, $HOME`).
		Add("Environment", "C", "").
		Add("DropCapability", "ALL").
		Add("Exec", "sh", "-c", "echo hello world", `say "hi"`, `a\b`, "$HOME", "100%", "it's")
	f.Section("Quadlet").Add("DefaultDependencies", "false")
	got, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want := `[Unit]
Description=100%% of $HOME
Requires=a.service b.service

[Container]
Image=localhost/agentcage:0123
Environment=A=x
Environment="B=two words, \"quotes\", a\\b, 5%%, $$HOME"
Environment=C=
DropCapability=ALL
Exec=sh -c "echo hello world" "say \"hi\"" "a\\b" $$HOME 100%% "it's"

[Quadlet]
DefaultDependencies=false
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestRefused is what must not be written: another key, another section, another
// line, or a value that one of the readers changes (rules.md 113).
func TestRefused(t *testing.T) {
	tests := []struct {
		name, section, key string
		values             []string
	}{
		{"unknown key", "Container", "Imag", []string{"x"}},
		{"key of another section", "Container", "Restart", []string{"always"}},
		{"key with a newline", "Container", "Image=x\nUser", []string{"x"}},
		{"unknown section", "Container]\n[Service", "ExecStart", []string{"x"}},
		{"key of another kind of file", "Network", "Internal", []string{"true"}},
		{"newline", "Container", "Image", []string{"x\nUser=0"}},
		{"newline in a quoted word", "Container", "Exec", []string{"x\ny"}},
		{"newline in a variable", "Container", "Environment", []string{"A", "x\ny"}},
		{"carriage return", "Container", "Image", []string{"x\ry"}},
		{"NUL", "Container", "Image", []string{"x\x00y"}},
		{"escape", "Container", "Exec", []string{"\x1b[2J"}},
		{"next line", "Container", "Image", []string{"x\u0085y"}},
		{"line separator", "Container", "Image", []string{"x\u2028y"}},
		{"no UTF-8", "Container", "Image", []string{"x\xff"}},
		{"backslash at the end", "Container", "Volume", []string{`/a:/b\`}},
		{"space at the end", "Container", "Volume", []string{"/a:/b "}},
		{"space at the start", "Container", "Volume", []string{" /a:/b"}},
		{"empty", "Container", "Volume", []string{""}},
		{"empty argument, the last that the generator passes on", "Container", "Exec", []string{"a", "", "b"}},
		{"lone semicolon", "Container", "Exec", []string{"a", ";", "b"}},
		{"lone semicolon, whole", "Container", "User", []string{";"}},
		{"quotes that are taken off", "Container", "WorkingDir", []string{`"/a"`}},
		{"volume without a source", "Container", "Volume", []string{":/a"}},
		{"no value", "Container", "Image", nil},
		{"two values", "Container", "Image", []string{"a", "b"}},
		{"name of a variable with a sign", "Container", "Environment", []string{"A=B", "c"}},
		{"name of a variable with a space", "Container", "Environment", []string{"A B", "c"}},
		{"empty name of a variable", "Container", "Environment", []string{"", "c"}},
		{"no boolean", "Container", "ReadOnly", []string{"false\nUser=0"}},
		{"no number", "Service", "RestartSec", []string{"1 2"}},
		{"negative number", "Service", "RestartSec", []string{"-1"}},
		{"name of a unit with a space", "Unit", "Requires", []string{"a.service b.service"}},
		{"too long", "Container", "Exec", []string{strings.Repeat("x", maxValue+1)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New("x.container")
			f.Section(tt.section).Add(tt.key, tt.values...)
			if data, err := f.Bytes(); err == nil {
				t.Errorf("it is written:\n%s", data)
			} else if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("the message has what it refuses: %q", err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a.network", "my-cage.container", "0a-b.volume"} {
		if _, err := New(name).Bytes(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".container", "-a.container", "a/b.container", "../a.container", "a b.container", "a.container\n",
		"A.container", "a@.container", "a%i.container", "a.service", "a.kube", "a", `a\x2d.container`, strings.Repeat("a", 128) + ".volume",
	} {
		if _, err := New(name).Bytes(); err == nil {
			t.Errorf("%q is taken", name)
		}
		if _, err := Parse(name, nil); err == nil {
			t.Errorf("%q is read", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "[Container]\n"
	for _, text := range []string{
		"Image=x\n", "[Nothing]\n", "[Container\n", "[Container]]\n", "[Service]\nImage=x\n", head + "Image\n", head + "=x\n",
		head + "Image=x", head + "Image=\n", head + " Image=x\n", head + "Image =x\n", head + "Image= x\n", head + "Image=x \n", head + "Image=x\\\n",
		head + "Image=x\\\nUser=0\n", head + "Image=%h\n", head + "Image=$HOME\n", head + head, head + "Exec='a b'\n", head + "Exec=a  b\n",
		head + "Exec=\"a\n", head + "Exec=\"a\"b\n", head + "Exec=\"a\\x41\"\n", head + "ReadOnly=yes\n", head + "Environment=A\n", head + "Environment=A=b C=d\n",
		head + "Exec=\"plain\"\n", head + "Image=x\r\n", head + "Image=x\x00\n",
	} {
		if f, err := Parse("x.container", []byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, f.Sections[0])
		}
	}
	f, err := Parse("x.container", []byte("# by hand\n\n; so too\n"+head+"# Image=y\nImage=x\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Get("Container", "Image"); err != nil || len(got) != 1 || got[0][0] != "x" {
		t.Errorf("read %v, %v", got, err)
	}
}

// ask adds the values to a key and gives back what a reader gets.
func ask(t *testing.T, section, key string, values []string) ([]byte, [][]string) {
	t.Helper()
	f := New("x.container")
	f.Section("Unit").Add("Description", "before")
	f.Section(section).Add(key, values...)
	f.Section("Quadlet").Add("DefaultDependencies", "false")
	data, err := f.Bytes()
	if err != nil {
		return nil, nil
	}
	back, err := Parse("x.container", data)
	if err != nil {
		t.Fatalf("cannot read what was written: %v\n%s", err, data)
	}
	again, err := back.Bytes()
	if err != nil || string(again) != string(data) {
		t.Fatalf("written again it is another: %v\n%s\n%s", err, data, again)
	}
	got, err := back.Get(section, key)
	if err != nil {
		t.Fatal(err)
	}
	return data, got
}

func TestEveryKeyComesBack(t *testing.T) {
	sample := map[string][]string{}
	for ending, all := range kinds {
		for section, keys := range all {
			for key, form := range keys {
				values := []string{"7"}
				switch {
				case form.pair:
					values = []string{"NAME", `v "1" \ $x %y`}
				case form.most == 0 && form.command:
					values = []string{"a", "b c", `\"$%`}
				case form.check != nil && form.check("true") == nil:
					values = []string{"true"}
				}
				f := New("x" + ending)
				f.Section(section).Add(key, values...)
				data, err := f.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				back, err := Parse("x"+ending, data)
				if err != nil {
					t.Fatal(err)
				}
				got, err := back.Get(section, key)
				if err != nil || len(got) != 1 || !slices.Equal(got[0], values) {
					t.Errorf("%s %s %s: %q comes back as %q, %v", ending, section, key, values, got, err)
				}
				sample[fmt.Sprint(ending, section, key)] = values
			}
		}
	}
	if len(sample) < 80 {
		t.Errorf("only %d keys were tried", len(sample))
	}
}

// FuzzValue holds that a value comes back as it was, and that it never becomes
// a line of its own.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		"", "plain", "a b", `"`, `\`, `\\`, `a\`, `\n`, "a\nUser=0", "x\n[Service]\nExecStart=/bin/sh", "%h", "%%", "$HOME", "${HOME}", "$$", ";", "#x",
		"'", "é", "\u2028", "\x00", "-", "--privileged", "@x", " x", "x ", "\t",
	} {
		f.Add("Image", s, s)
		f.Add("Exec", s, "b")
		f.Add("Environment", "NAME", s)
		f.Add("Requires", s, s)
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, key, a, b string) {
		for _, section := range []string{"Unit", "Container", "Service"} {
			for _, values := range [][]string{{a}, {a, b}} {
				data, got := ask(t, section, key, values)
				if data == nil {
					continue
				}
				if len(got) < 1 || !slices.Equal(got[len(got)-1], values) {
					t.Fatalf("%s=%q comes back as %q\n%s", key, values, got, data)
				}
				// Three headers, three blank lines less one, and three keys at most.
				if n := strings.Count(string(data), "\n"); n > 3+2+3 {
					t.Fatalf("%s=%q made %d lines:\n%s", key, values, n, data)
				}
			}
		}
	})
}

// FuzzParse holds that whatever is read is what would be written.
func FuzzParse(f *testing.F) {
	f.Add("x.container", "[Container]\nImage=x\nExec=sh -c \"echo %% $$\"\n")
	f.Add("x.network", "[Network]\nInternal=true\n\n[Quadlet]\nDefaultDependencies=false\n")
	f.Add("x.volume", "# comment\n[Volume]\nVolumeName=a\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		file, err := Parse(name, []byte(text))
		if err != nil {
			return
		}
		data, err := file.Bytes()
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		back, err := Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := back.Bytes(); err != nil || string(again) != string(data) {
			t.Fatalf("%q, then %q, %v", data, again, err)
		}
		if path.Ext(name) == "" {
			t.Fatalf("%q is read", name)
		}
	})
}
