package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ashlarfs/ashlar"
)

// ServeText writes a node's configuration as a file that LoadServe reads
// back, with a comment for whoever edits it. secretFile and the paths in s
// are written as they are.
func ServeText(s *Serve, secretFile string) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# One node of an Ashlar cluster. Settings: `ashlar help serve`.")
	line("cluster     = %q", s.Cluster)
	line("secret_file = %q", secretFile)
	line("name        = %q", s.Name)
	line("listen      = %q", s.Listen)
	line("advertise   = %q", s.Advertise)
	line("data        = %q", s.Data)
	if s.Rack != "" {
		line("rack        = %q", s.Rack)
	}
	var roles []string
	if s.Master {
		roles = append(roles, "master")
	}
	if s.Chunkserver {
		roles = append(roles, "chunkserver")
	}
	line("roles       = %s", list(roles))
	line("")
	line("# Every master of the cluster, the same on every node.")
	line("masters     = %s", list(masterTexts(s.Masters)))
	for _, d := range s.Disks {
		line("")
		line("[[disk]]")
		line("path    = %q", d.Path)
		if len(d.Labels) > 0 {
			line("labels  = %s", list(d.Labels))
		}
		if d.Reserve > 0 {
			line("reserve = %q # kept free; new data is refused below it", sizeText(d.Reserve))
		}
	}
	if t := s.Timing; t != (Timing{}) && t != defaultTiming {
		line("")
		line("[timing] # the same on every node")
		line("lease    = %q", t.Lease)
		line("renew    = %q", t.Renew)
		line("dead     = %q", t.Dead)
		line("election = %q", t.Election)
		if t.NoWitness {
			line("witness  = false # silence alone tells that a node is dead")
		}
	}
	line("")
	line("[pool] # of a new cluster; later: `ashlar pool set`")
	line("replicas = %d", s.Pool.Replicas)
	if s.Pool.RepairAfter > 0 && s.Pool.RepairAfter != DefaultRepairAfter {
		line("repair_after = %q", s.Pool.RepairAfter)
	}
	return []byte(b.String())
}

var defaultTiming = Timing{Lease: DefaultLease, Renew: DefaultRenew, Dead: DefaultDead, Election: DefaultElection}

// sizeText writes a size so that ParseSize reads exactly it.
func sizeText(n uint64) string {
	const mib = 1 << 20
	if n%mib == 0 {
		return fmt.Sprintf("%dMiB", n/mib)
	}
	return fmt.Sprint(n)
}

// ClientText writes a client file that LoadClient reads back.
func ClientText(cluster ashlar.ClusterID, masters []Master, secretFile, volume string) []byte {
	var b strings.Builder
	fmt.Fprintln(&b, "# How to reach an Ashlar cluster: ashlar --cluster THIS-FILE ...")
	fmt.Fprintf(&b, "cluster     = %q\n", cluster)
	fmt.Fprintf(&b, "masters     = %s\n", list(masterTexts(masters)))
	fmt.Fprintf(&b, "secret_file = %q\n", secretFile)
	if volume != "" {
		fmt.Fprintf(&b, "volume      = %q\n", volume)
	}
	return []byte(b.String())
}

func masterTexts(ms []Master) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = m.Name + "=" + m.Addr
	}
	return out
}

func list(items []string) string {
	q := make([]string, len(items))
	for i, s := range items {
		q[i] = fmt.Sprintf("%q", s)
	}
	return "[" + strings.Join(q, ", ") + "]"
}

// Base makes file relative to dir if it is inside, for configurations that
// move together with what they name.
func Base(dir, file string) string {
	if r, err := filepath.Rel(dir, file); err == nil && !strings.HasPrefix(r, "..") {
		return r
	}
	return file
}
