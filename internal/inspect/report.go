package inspect

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
)

// Status is how a file was found.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Damaged Status = "damaged"
	Newer   Status = "newer format" // not for this release to judge
	Foreign Status = "not an Ashlar file"
	Failed  Status = "not readable" // an error of the file system
)

// Report is what is said of one file, or of a directory that is one thing.
type Report struct {
	Path    string  `json:"path"`
	Kind    string  `json:"kind,omitempty"`
	Status  Status  `json:"status"`
	Cluster string  `json:"cluster,omitempty"`
	Fields  []Field `json:"fields,omitempty"`
	// Problems are damage; Notes are what is as it may be and worth knowing.
	Problems []string `json:"problems,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	// Entries are the file's contents, if they were asked for.
	Entries []string `json:"entries,omitempty"`
}

// Field is a fact about a file.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (r *Report) field(name, format string, a ...any) {
	r.Fields = append(r.Fields, Field{name, fmt.Sprintf(format, a...)})
}

func (r *Report) note(format string, a ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, a...)) }

func (r *Report) damage(format string, a ...any) {
	r.Status = Damaged
	r.Problems = append(r.Problems, fmt.Sprintf(format, a...))
}

// fail records why a decoder refused the file.
func (r *Report) fail(err error) {
	switch ashlar.KindOf(err) {
	case ashlar.Version:
		r.Status = Newer
	case ashlar.Corrupt, ashlar.WrongCluster, ashlar.Invalid:
		r.Status = Damaged
	default:
		r.Status = Failed
	}
	r.Problems = append(r.Problems, err.Error())
}

func (r *Report) cluster(c ashlar.ClusterID) { r.Cluster = c.String() }

// Totals counts reports.
type Totals struct {
	Files   int   `json:"files"`
	Bytes   int64 `json:"bytes"`
	Damaged int   `json:"damaged"`
	Newer   int   `json:"newer"`
	Foreign int   `json:"foreign"`
	Failed  int   `json:"unreadable"`
	Notes   int   `json:"notes"`
}

// Add counts a report.
func (t *Totals) Add(r *Report) {
	switch r.Status {
	case Damaged:
		t.Damaged++
	case Newer:
		t.Newer++
	case Foreign:
		t.Foreign++
	case Failed:
		t.Failed++
	}
	if r.Status != Foreign {
		t.Files++
	}
	t.Notes += len(r.Notes)
}
