package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
)

// Limits and defaults of a local cluster.
const (
	NodesDefault   = 3
	NodesMax       = 64
	VotersMax      = 5
	ReserveDefault = 64 << 20 // bytes kept free on each disk
	VolumeDefault  = "main"
)

// stateVersion is the format of dev.json; other versions are refused.
const stateVersion = 1

// State is what dev.json holds: what was asked for, not what runs.
type State struct {
	Version  int    `json:"version"`
	Cluster  string `json:"cluster"`
	Replicas int    `json:"replicas"`
	Volume   string `json:"volume"`
	Mount    string `json:"mount,omitempty"`
	Nodes    []Node `json:"nodes"`
}

// Node is one process of the cluster.
type Node struct {
	Name   string `json:"name"`
	Addr   string `json:"addr"`
	Master bool   `json:"master"`
}

// Masters returns the nodes that are masters.
func (s *State) Masters() []config.Master {
	var out []config.Master
	for _, n := range s.Nodes {
		if n.Master {
			out = append(out, config.Master{Name: n.Name, Addr: n.Addr})
		}
	}
	return out
}

// Find returns a node by name.
func (s *State) Find(name string) (Node, error) {
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		var names []string
		for _, n := range s.Nodes {
			names = append(names, n.Name)
		}
		return Node{}, ashlar.E("dev", ashlar.NotExist, "node "+name, fmt.Errorf("there are %s", strings.Join(names, ", ")))
	}
	return s.Nodes[i], nil
}

// Load reads the state of the cluster under dir.
func Load(dir string) (*State, error) {
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ashlar.E("dev", ashlar.NotExist, dir, fmt.Errorf("no local cluster there; start one with `ashlar dev up --dir %s`", dir))
	}
	if err != nil {
		return nil, err
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, ashlar.E("dev", ashlar.Corrupt, filepath.Join(dir, "dev.json"), err)
	}
	if s.Version != stateVersion {
		return nil, ashlar.E("dev", ashlar.Version, filepath.Join(dir, "dev.json"), fmt.Errorf("version %d; this binary knows %d", s.Version, stateVersion))
	}
	return s, nil
}

func (s *State) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return config.WriteFile(filepath.Join(dir, "dev.json"), append(b, '\n'), 0o644)
}

// lockFile takes an exclusive lock on a file, waiting for it or not.
func lockFile(file string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// locked runs fn while no other command changes the cluster.
func locked(dir string, fn func() error) error {
	f, err := lockFile(filepath.Join(dir, "dev.lock"), true)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn()
}

// voters is how many of n nodes are masters: the largest odd number up to
// VotersMax, because an even one survives no more failures.
func voters(n int) int {
	n = min(n, VotersMax)
	return n - 1 + n%2
}

// nodeName names the i-th node, counted from 0.
func nodeName(i int) string { return "n" + strconv.Itoa(i+1) }

// writeFiles writes what every process of the cluster reads: configurations,
// client file and, once, the secret. Nodes that run keep what they read.
func (s *State) writeFiles(dir string) error {
	secret := filepath.Join(dir, "secret")
	if _, err := os.Stat(secret); errors.Is(err, fs.ErrNotExist) {
		if err := config.WriteFile(secret, append(config.NewSecret(), '\n'), 0o600); err != nil {
			return err
		}
	}
	id, err := ashlar.ParseClusterID(s.Cluster)
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		nd := filepath.Join(dir, n.Name)
		if err := os.MkdirAll(filepath.Join(nd, "disk"), 0o755); err != nil {
			return err
		}
		text := config.ServeText(&config.Serve{
			Cluster: id, Name: n.Name, Listen: n.Addr, Advertise: n.Addr, Data: "data",
			Master: n.Master, Chunkserver: true, Masters: s.Masters(),
			Disks: []config.Disk{{Path: "disk", Reserve: ReserveDefault}},
			Pool:  config.Pool{Replicas: s.Replicas},
		}, "../secret")
		if err := keepOrWrite(filepath.Join(nd, "ashlar.toml"), text); err != nil {
			return err
		}
	}
	return config.WriteFile(filepath.Join(dir, "client.toml"), config.ClientText(id, s.Masters(), "secret", s.Volume), 0o644)
}

// keepOrWrite writes a node's configuration unless the user has changed what
// was there: a hand-made edit, such as other timing, is kept. Only the list
// of masters is brought up to date in it.
func keepOrWrite(file string, text []byte) error {
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return config.WriteFile(file, text, 0o644)
	}
	if err != nil {
		return err
	}
	want := mastersLine(string(text))
	have := mastersLine(string(old))
	if have == "" || have == want {
		return nil
	}
	return config.WriteFile(file, []byte(strings.Replace(string(old), have, want, 1)), 0o644)
}

func mastersLine(text string) string {
	for _, l := range strings.SplitAfter(text, "\n") {
		if strings.HasPrefix(l, "masters ") || strings.HasPrefix(l, "masters=") {
			return l
		}
	}
	return ""
}
