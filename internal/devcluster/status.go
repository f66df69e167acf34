package devcluster

import (
	"context"
	"path/filepath"
	"time"
)

// Status is what dev status shows.
type Status struct {
	Dir     string       `json:"dir"`
	Client  string       `json:"client"`
	Cluster string       `json:"cluster"`
	Leader  string       `json:"leader"` // name, "" if none answers
	Health  string       `json:"health"` // as `ashlar status` says, "" if no leader answers
	Up      int          `json:"up_pid"` // supervisor in the foreground, 0 if none
	Volume  string       `json:"volume"`
	Mount   string       `json:"mount,omitempty"`
	MountID int          `json:"mount_pid,omitempty"`
	Nodes   []NodeStatus `json:"nodes"`
}

// NodeStatus is one node as its process and the masters show it.
type NodeStatus struct {
	Name   string   `json:"name"`
	PID    int      `json:"pid"` // 0 if it does not run
	Addr   string   `json:"addr"`
	Roles  []string `json:"roles"`
	State  string   `json:"state"` // "running", "paused", "stopped"
	Leader bool     `json:"leader"`
	Dir    string   `json:"dir"`
	Log    string   `json:"log"`
}

// statusTimeout is how long the masters may take to say who leads.
const statusTimeout = 2 * time.Second

// Status tells what runs. It needs no leader.
func (c *Cluster) Status(ctx context.Context) (*Status, error) {
	s, err := Load(c.Dir)
	if err != nil {
		return nil, err
	}
	st := &Status{Dir: c.Dir, Client: c.ClientFile(), Cluster: s.Cluster, Volume: s.Volume, Mount: s.Mount}
	up, err := readPID(filepath.Join(c.Dir, "up.pid"))
	if err != nil {
		return nil, err
	}
	mp, err := readPID(filepath.Join(c.Dir, "mount.pid"))
	if err != nil {
		return nil, err
	}
	st.Up, st.MountID = up.PID, mp.PID
	running := 0
	for _, n := range s.Nodes {
		ns := NodeStatus{Name: n.Name, Addr: n.Addr, State: "stopped", Roles: []string{"chunkserver"},
			Dir: filepath.Join(c.Dir, n.Name), Log: c.nodeFile(n.Name, "log")}
		if n.Master {
			ns.Roles = []string{"master", "chunkserver"}
		}
		p, err := readPID(c.nodeFile(n.Name, "pid"))
		if err != nil {
			return nil, err
		}
		if p.PID != 0 {
			ns.PID, ns.State = p.PID, "running"
			if p.paused() {
				ns.State = "paused"
			} else {
				running++
			}
		}
		st.Nodes = append(st.Nodes, ns)
	}
	if running > 0 {
		c.askLeader(ctx, st)
	}
	return st, nil
}

// askLeader fills in who leads, if that can be told soon.
func (c *Cluster) askLeader(ctx context.Context, st *Status) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	a, err := c.Connect(c.ClientFile())
	if err != nil {
		return
	}
	defer a.Close()
	ws, err := a.Status(ctx)
	if err != nil {
		return
	}
	st.Leader, st.Health = ws.Leader, ws.Health
	for i := range st.Nodes {
		st.Nodes[i].Leader = st.Nodes[i].Name == ws.Leader
	}
}
