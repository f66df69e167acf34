package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// fileMax bounds a configuration file, in bytes.
const fileMax = 1 << 20

// source knows where every value of a configuration came from: keys such as
// "listen", "timing.lease" or "disk[1].path" to a place.
type source struct {
	file   string
	places map[string]string
}

// at returns the place of a key: its own, or that of what contains it, or
// the file.
func (s *source) at(key string) string {
	for k := key; ; {
		if p, ok := s.places[k]; ok {
			return p
		}
		i := strings.LastIndexAny(k, ".[")
		if i < 0 {
			if s.file == "" {
				return "configuration"
			}
			return s.file
		}
		k = k[:i]
	}
}

// decode reads a TOML file into dst, a pointer to a struct, refusing unknown
// keys.
func decode(file string, dst any) (*source, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > fileMax {
		return nil, &Error{Where: file, What: fmt.Sprintf("%d bytes long", fi.Size()), Want: fmt.Sprintf("a configuration is at most %d", fileMax)}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return decodeBytes(file, b, dst)
}

func decodeBytes(file string, b []byte, dst any) (*source, error) {
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return nil, explain(file, err, dst)
	}
	return &source{file: file, places: places(file, b)}, nil
}

// explain turns the errors of the TOML library into ours.
func explain(file string, err error, dst any) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		var a all
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, col := e.Position()
			key := strings.Join(e.Key(), ".")
			want := "see `ashlar help serve` for the settings there are"
			if near := nearest(key, keys(reflect.TypeOf(dst), "")); near != "" {
				want = fmt.Sprintf("did you mean %q?", near)
			}
			a.addf(fmt.Sprintf("%s:%d:%d", file, row, col), key, want, "unknown setting")
		}
		return a.err()
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		row, col := de.Position()
		return &Error{Where: fmt.Sprintf("%s:%d:%d", file, row, col), Key: strings.Join(de.Key(), "."),
			What: strings.TrimPrefix(de.Error(), "toml: ")}
	}
	return &Error{Where: file, What: strings.TrimPrefix(err.Error(), "toml: ")}
}

// places walks a document that decoded and notes where each key stands.
func places(file string, b []byte) map[string]string {
	out := map[string]string{}
	var p unstable.Parser
	p.Reset(b)
	table, count := "", map[string]int{}
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		var at unstable.Position
		for it := e.Key(); it.Next(); {
			if len(parts) == 0 {
				at = p.Shape(it.Node().Raw).Start
			}
			parts = append(parts, string(it.Node().Data))
		}
		key := strings.Join(parts, ".")
		where := fmt.Sprintf("%s:%d:%d", file, at.Line, at.Column)
		switch e.Kind {
		case unstable.Table:
			table = key
			out[table] = where
		case unstable.ArrayTable:
			table = fmt.Sprintf("%s[%d]", key, count[key])
			count[key]++
			out[table] = where
		case unstable.KeyValue:
			if table != "" {
				key = table + "." + key
			}
			out[key] = where
		}
	}
	return out
}

// keys lists the settings of a struct type by their full names.
func keys(t reflect.Type, prefix string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" || name == "-" {
			continue
		}
		out = append(out, prefix+name)
		out = append(out, keys(f.Type, prefix+name+".")...)
	}
	return out
}

// nearest returns the known key most like a wrong one, "" if none is near.
func nearest(wrong string, known []string) string {
	best, bestDist := "", 4
	last := wrong[strings.LastIndexByte(wrong, '.')+1:]
	for _, k := range known {
		d := distance(wrong, k)
		if i := strings.LastIndexByte(k, '.'); i >= 0 {
			d = min(d, distance(last, k[i+1:])+1)
		}
		d = min(d, distance(last, k)+1)
		if d < bestDist && d < max(2, len(wrong)) {
			best, bestDist = k, d
		}
	}
	return best
}

// distance is the number of single-byte edits between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diag+cost)
			diag, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// resolve makes a path in a file relative to that file.
func (s *source) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) || s.file == "" {
		return path
	}
	return filepath.Join(filepath.Dir(s.file), path)
}
