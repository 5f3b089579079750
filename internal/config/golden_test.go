package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentcage/agentcage/internal/hostname"
)

var update = flag.Bool("update", false, "write golden files and documentation instead of comparing them")

// TestGolden reads every testdata/*.yaml and compares what comes of it: the
// fields that differ from the defaults and the warnings, or the errors word
// for word.
func TestGolden(t *testing.T) {
	t.Setenv("HOME", "/home/user")
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("found %d files in testdata, %v; want 60 or more", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", outcome(data))
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run go test -update", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); run go test -update if that is right:\n%s", file, d)
	}
}

// outcome parses data as /etc/cage/cage.yaml, so that golden files are the
// same everywhere.
func outcome(data []byte) string {
	c, err := Parse("/etc/cage/cage.yaml", data)
	if err != nil {
		return strings.ReplaceAll(err.Error(), "/etc/cage/", "") + "\n"
	}
	var b strings.Builder
	dump(&b, "", reflect.ValueOf(c).Elem(), reflect.ValueOf(Default()).Elem())
	for _, w := range c.Warnings() {
		fmt.Fprintf(&b, "warning: %s\n", strings.ReplaceAll(w.String(), "/etc/cage/", ""))
	}
	return b.String()
}

// dump writes one line for each field that is not the default's.
func dump(b *strings.Builder, path string, v, def reflect.Value) {
	switch x := v.Interface().(type) {
	case hostname.Name:
		line(b, path, x.String(), def.Interface().(hostname.Name).String())
		return
	case Position:
		return
	case time.Time:
		line(b, path, x.Format(time.RFC3339Nano), def.Interface().(time.Time).Format(time.RFC3339Nano))
		return
	case time.Duration:
		line(b, path, x.String(), def.Interface().(time.Duration).String())
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "File" && f.Name != "Sum" {
				dump(b, strings.TrimPrefix(path+"."+f.Name, "."), v.Field(i), def.Field(i))
			}
		}
	case reflect.Slice:
		if reflect.DeepEqual(v.Interface(), def.Interface()) {
			return
		}
		if v.Len() == 0 && def.Len() > 0 {
			fmt.Fprintf(b, "%s: none\n", path)
		}
		for i := range v.Len() {
			if p, ok := v.Index(i).Interface().(Position); ok {
				fmt.Fprintf(b, "%s[%d]: %s at %d:%d\n", path, i, p.Key, p.Line, p.Column)
				continue
			}
			dump(b, fmt.Sprintf("%s[%d]", path, i), v.Index(i), reflect.Zero(v.Type().Elem()))
		}
	case reflect.Map:
		dumpMap(b, path, v)
	default:
		line(b, path, v.Interface(), def.Interface())
	}
}

func dumpMap(b *strings.Builder, path string, v reflect.Value) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		return strings.Compare(fmt.Sprint(a.Interface()), fmt.Sprint(b.Interface()))
	})
	for _, k := range keys {
		dump(b, fmt.Sprintf("%s[%v]", path, k.Interface()), v.MapIndex(k), reflect.Zero(v.Type().Elem()))
	}
}

func line(b *strings.Builder, path string, got, def any) {
	if got != def {
		if s, ok := got.(string); ok {
			got = fmt.Sprintf("%q", s)
		}
		fmt.Fprintf(b, "%s: %v\n", path, got)
	}
}
