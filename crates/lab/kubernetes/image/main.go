// Command image writes a container image of one layer as an archive that `ctr images import` reads, in the form of `docker save`:
// no container engine takes part. The same files give the same bytes.
//
//	image -o FILE -name NAME [-name NAME]… [-entrypoint WORD]… [-cmd WORD]… SOURCE:PATH…
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// words is a flag that may be given several times.
type words []string

func (w *words) String() string         { return strings.Join(*w, " ") }
func (w *words) Set(value string) error { *w = append(*w, value); return nil }

func main() {
	var names, entrypoint, command words
	out := flag.String("o", "", "the archive to write")
	flag.Var(&names, "name", "name and tag of the image; may be repeated")
	flag.Var(&entrypoint, "entrypoint", "a word of its entrypoint; may be repeated")
	flag.Var(&command, "cmd", "a word of its default arguments; may be repeated")
	flag.Parse()
	if err := run(*out, names, entrypoint, command, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(out string, names, entrypoint, command, files []string) error {
	if out == "" || len(names) == 0 || len(files) == 0 {
		return errors.New("-o, -name and at least one SOURCE:PATH are needed")
	}
	layer, err := layerOf(files)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": entrypoint,
			"Cmd":        command,
			"Env":        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": names, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, part := range []struct {
		name string
		data []byte
	}{{"config.json", config}, {"layer.tar", layer}, {"manifest.json", manifest}} {
		if err := put(w, part.name, 0o644, int64(len(part.data)), bytes.NewReader(part.data)); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	// Whole or not at all: a cut archive would be taken for the image.
	if err := os.WriteFile(out+".new", archive.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(out+".new", out)
}

// layerOf packs the files, the directories above them, and a /tmp for everybody.
func layerOf(files []string) ([]byte, error) {
	sources := map[string]string{}
	directories := map[string]int64{"tmp": 0o1777}
	for _, file := range files {
		source, target, ok := strings.Cut(file, ":")
		target = strings.TrimPrefix(path.Clean(target), "/")
		if !ok || source == "" || target == "" || target == "." {
			return nil, fmt.Errorf("%q is no SOURCE:PATH", file)
		}
		sources[target] = source
		for above := path.Dir(target); above != "."; above = path.Dir(above) {
			if _, made := directories[above]; !made {
				directories[above] = 0o755
			}
		}
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, directory := range slices.Sorted(maps.Keys(directories)) {
		header := tar.Header{Typeflag: tar.TypeDir, Name: directory + "/", Mode: directories[directory], Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&header); err != nil {
			return nil, err
		}
	}
	for _, target := range slices.Sorted(maps.Keys(sources)) {
		if err := putFile(w, target, sources[target]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return layer.Bytes(), err
}

func putFile(w *tar.Writer, target, source string) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return put(w, target, mode, info.Size(), file)
}

func put(w *tar.Writer, name string, mode, size int64, from io.Reader) error {
	header := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(&header); err != nil {
		return err
	}
	_, err := io.Copy(w, from)
	return err
}
