package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program is the least that is a program: an ELF header, and one program
// header of a kind.
func program(machine, kind uint16, segment uint32) []byte {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	le := binary.LittleEndian
	b = le.AppendUint16(b, kind)
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, 0)  // entry
	b = le.AppendUint64(b, 64) // program headers
	b = le.AppendUint64(b, 0)  // sections
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	b = le.AppendUint32(b, segment)
	return append(b, make([]byte, 52)...)
}

const (
	amd64, arm64, riscv = 62, 183, 243
	exec, object        = 2, 1
	load, interp        = 1, 3
)

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agentcage")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefuses(t *testing.T) {
	tests := []struct {
		name, arch string
		data       []byte
		want       string // in the message; empty is taken
	}{
		{"amd64", "amd64", program(amd64, exec, load), ""},
		{"arm64", "arm64", program(arm64, exec, load), ""},
		{"another architecture", "arm64", program(amd64, exec, load), "give the agentcage binary for linux/arm64"},
		{"the other way round", "amd64", program(arm64, exec, load), "EM_AARCH64: give the agentcage binary for linux/amd64"},
		{"an architecture without containers", "riscv64", program(riscv, exec, load), `no containers for "riscv64"`},
		{"shared libraries", "amd64", program(amd64, exec, interp), "CGO_ENABLED=0"},
		{"no program", "amd64", program(amd64, object, load), "no program"},
		{"a program for macOS", "arm64", []byte("\xcf\xfa\xed\xfe\x0c\x00\x00\x01"), "no program for Linux: give the agentcage binary for linux/arm64"},
		{"a script", "amd64", []byte("#!/bin/sh\n"), "no program for Linux"},
		{"half a header", "amd64", program(amd64, exec, load)[:40], "no program for Linux"},
		{"nothing", "amd64", nil, "no program for Linux"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i, err := FromFile(file(t, tt.data), tt.arch)
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, %v, want %q", i, err, tt.want)
			}
		})
	}
	if _, err := FromFile(filepath.Join(t.TempDir(), "none"), "amd64"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestSameBytes(t *testing.T) {
	write := func(data []byte) (string, []byte) {
		i, err := FromFile(file(t, data), "amd64")
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := i.Write(&b); err != nil {
			t.Fatal(err)
		}
		return i.Ref, b.Bytes()
	}
	one := program(amd64, exec, load)
	ref, data := write(one)
	again, same := write(one)
	if ref != again || !bytes.Equal(data, same) {
		t.Errorf("the same program gives %s and %s", ref, again)
	}
	other, _ := write(append(bytes.Clone(one), 0))
	if other == ref {
		t.Errorf("another program is called %s too", ref)
	}
	if !strings.HasPrefix(ref, "localhost/agentcage:") {
		t.Errorf("it is called %s", ref)
	}
}

func TestArchive(t *testing.T) {
	data := program(amd64, exec, load)
	i, err := FromFile(file(t, data), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := i.Write(&b); err != nil {
		t.Fatal(err)
	}
	parts := untar(t, &b)
	var manifest []archived
	if err := json.Unmarshal(parts["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest: %v, %s", err, parts["manifest.json"])
	}
	m := manifest[0]
	if digest(parts[m.Config])+".json" != m.Config || m.Config != i.ID+".json" {
		t.Errorf("the config is %s", m.Config)
	}
	var c imageConfig
	if err := json.Unmarshal(parts[m.Config], &c); err != nil {
		t.Fatal(err)
	}
	layer := parts[m.Layers[0]]
	if len(m.Layers) != 1 || c.RootFS.DiffIDs[0] != "sha256:"+digest(layer) {
		t.Errorf("the layers are %v, %v", m.Layers, c.RootFS.DiffIDs)
	}
	if c.Config.User == "" || strings.HasPrefix(c.Config.User, "0") {
		t.Errorf("it runs as %q", c.Config.User)
	}
	content := untar(t, bytes.NewReader(layer))
	if len(content) != 1 || !bytes.Equal(content["agentcage"], data) {
		t.Errorf("the layer has %d files", len(content))
	}
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	parts := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch) || h.Uid != 0 || h.Gid != 0 || h.Mode&0o222 != 0 || h.Uname != "" {
			t.Errorf("the header of %s depends on something else: %+v", h.Name, h)
		}
		if parts[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteFails(t *testing.T) {
	i, err := FromFile(file(t, program(amd64, exec, load)), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Write(full{}); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a full disk: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
