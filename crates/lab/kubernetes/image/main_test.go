package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// unpacked is what a tar holds, by name.
func unpacked(t *testing.T, from io.Reader) (files map[string][]byte, modes map[string]int64) {
	t.Helper()
	files, modes = map[string][]byte{}, map[string]int64{}
	for r := tar.NewReader(from); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name], modes[header.Name] = data, header.Mode
	}
}

func TestAnImageIsAnArchiveOfOneLayerWithTheFilesAndTheirDirectories(t *testing.T) {
	dir := t.TempDir()
	source, out := filepath.Join(dir, "program"), filepath.Join(dir, "out.tar")
	if err := os.WriteFile(source, []byte("run me"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func() []byte {
		if err := run(out, []string{"lab/x:1"}, []string{"/usr/bin/x"}, nil, []string{source + ":/usr/bin/x"}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data := write()
	archive, _ := unpacked(t, bytes.NewReader(data))
	layer, modes := unpacked(t, bytes.NewReader(archive["layer.tar"]))
	if got := string(layer["usr/bin/x"]); got != "run me" || modes["usr/bin/x"] != 0o755 {
		t.Errorf("the program is %q with mode %o", got, modes["usr/bin/x"])
	}
	if modes["usr/"] != 0o755 || modes["usr/bin/"] != 0o755 || modes["tmp/"] != 0o1777 {
		t.Errorf("directories: %v", modes)
	}
	var config struct {
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(archive["config.json"], &config); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(archive["layer.tar"])); !slices.Equal(config.Rootfs.DiffIDs, []string{want}) {
		t.Errorf("the layer is %v, want %s", config.Rootfs.DiffIDs, want)
	}
	var manifest []struct{ RepoTags []string }
	if err := json.Unmarshal(archive["manifest.json"], &manifest); err != nil || !slices.Equal(manifest[0].RepoTags, []string{"lab/x:1"}) {
		t.Errorf("names: %v, %v", manifest, err)
	}
	if !bytes.Equal(data, write()) {
		t.Error("the same files gave other bytes")
	}
}

func TestWhatIsNoImageIsRefused(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.tar")
	for _, files := range [][]string{nil, {"no-target"}, {"x:/"}, {":/x"}, {"/does/not/exist:/x"}} {
		if run(out, []string{"x"}, nil, nil, files) == nil {
			t.Errorf("%q was taken", files)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("an archive was left")
	}
}
