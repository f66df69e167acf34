package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/config"
)

type installOptions struct {
	name     string
	addr     string
	masters  []string
	dir      string
	data     string
	disks    []string
	rack     string
	replicas int
	cluster  string
	secret   string
	volume   string
}

func newInstallCmd(g *global) *cobra.Command {
	var o installOptions
	c := &cobra.Command{
		Use:   "install --name NAME --masters NAME=HOST:PORT,... --disk DIR",
		Short: "write the configuration of a node",
		Long: `Writes ashlar.toml, client.toml and, on the first node, the cluster's secret
into a directory. Nothing is started and nothing that is there is overwritten.

The first node makes the cluster: a new UUID and a new secret. On every other
node give --join with the client.toml copied from the first, and its secret
beside it:

  n1# ashlar install --name n1 --masters n1=10.0.0.1:9500,n2=10.0.0.2:9500,n3=10.0.0.3:9500 --disk /srv/ashlar
  n1# scp /etc/ashlar/{client.toml,secret} root@10.0.0.2:/etc/ashlar/
  n2# ashlar install --name n2 --join /etc/ashlar/client.toml --disk /srv/ashlar

` + exits(exitOK, exitFailed, exitUsage),
		Example: `  ashlar install --name n1 --masters n1=10.0.0.1:9500 --disk /srv/ashlar
  ashlar install --name n4 --join /etc/ashlar/client.toml --addr 10.0.0.4:9500 --disk /srv/d1 --disk /srv/d2`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return runInstall(g, o) },
	}
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "name of this node")
	f.StringVar(&o.addr, "addr", "", "host:port others reach this node at (a master: as in --masters)")
	f.StringSliceVar(&o.masters, "masters", nil, "every master, name=host:port")
	f.StringVar(&o.cluster, "join", "", "client.toml of the cluster to join, its secret beside it")
	f.StringVar(&o.dir, "dir", filepath.Dir(config.DefaultServeFile), "where to write")
	f.StringVar(&o.data, "data", "/var/lib/ashlar", "directory of the node's identity and metadata")
	f.StringArrayVar(&o.disks, "disk", nil, "directory on a disk; repeat for more")
	f.StringVar(&o.rack, "rack", "", "rack label")
	f.IntVar(&o.replicas, "replicas", 0, "copies in a new cluster (default 2, or 1 with a single master)")
	f.StringVar(&o.volume, "volume", "", "default volume in client.toml")
	return c
}

func runInstall(g *global, o installOptions) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	s, secret, err := o.serve()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	serveFile, clientFile, secretFile := filepath.Join(dir, "ashlar.toml"), filepath.Join(dir, "client.toml"), filepath.Join(dir, "secret")
	if _, err := os.Stat(serveFile); !errors.Is(err, fs.ErrNotExist) {
		return hintf(ashlar.E("install", ashlar.Exist, serveFile, nil), "edit it, or remove it first to begin anew")
	}
	if err := writeNew(secretFile, append(slices.Clone(secret), '\n'), 0o600, secret); err != nil {
		return err
	}
	if err := writeNew(clientFile, config.ClientText(s.Cluster, s.Masters, "secret", o.volume), 0o644, nil); err != nil {
		return err
	}
	if err := config.WriteFile(serveFile, config.ServeText(s, "secret"), 0o644); err != nil {
		return err
	}
	if _, err := config.LoadServe(serveFile); err != nil {
		return errors.Join(err, os.Remove(serveFile))
	}
	for _, d := range append(o.disks, o.data) {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if g.json {
		return printJSON(g.Out, map[string]string{"config": serveFile, "client": clientFile, "secret": secretFile, "cluster": s.Cluster.String()})
	}
	g.sayf("cluster %s\nwritten: %s, %s and %s\nnext: copy %s and the secret to the other machines, then on each: ashlar serve --config %s",
		s.Cluster, serveFile, clientFile, secretFile, clientFile, serveFile)
	return nil
}

// writeNew writes a file that is not there. One that is there is kept if it
// is what a join brought; another secret is refused.
func writeNew(file string, b []byte, mode fs.FileMode, secret []byte) error {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return config.WriteFile(file, b, mode)
	}
	if secret == nil {
		return nil
	}
	have, err := config.ReadSecret(file)
	if err != nil {
		return err
	}
	if !slices.Equal(have, secret) {
		return hintf(ashlar.E("install", ashlar.Exist, file, errors.New("it is the secret of another cluster")),
			"to join that cluster give --join; to make a new one remove the file")
	}
	return nil
}

// serve makes the configuration from the options.
func (o *installOptions) serve() (*config.Serve, []byte, error) {
	if !config.ValidName(o.name) {
		return nil, nil, usagef("--name %q: %s", o.name, config.NameRule)
	}
	if (o.cluster == "") == (len(o.masters) == 0) {
		return nil, nil, usagef("give --masters to make a cluster, or --join to join one")
	}
	data, err := filepath.Abs(o.data)
	if err != nil {
		return nil, nil, err
	}
	s := &config.Serve{Name: o.name, Data: data, Rack: o.rack, Chunkserver: len(o.disks) > 0, Pool: config.Pool{Replicas: o.replicas}}
	secret, err := o.join(s)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range s.Masters {
		if m.Name == o.name {
			s.Master, s.Advertise = true, m.Addr
		}
	}
	if o.addr != "" {
		s.Advertise = o.addr
	}
	if s.Advertise == "" {
		return nil, nil, usagef("%s is not among the masters; give --addr HOST:PORT", o.name)
	}
	if !s.Master && !s.Chunkserver {
		return nil, nil, usagef("%s would have no role: name it in --masters, or give it a --disk", o.name)
	}
	s.Listen = s.Advertise
	for _, d := range o.disks {
		p, err := filepath.Abs(d)
		if err != nil {
			return nil, nil, err
		}
		s.Disks = append(s.Disks, config.Disk{Path: p})
	}
	return s, secret, nil
}

// join fills in the cluster: a new one, or that of a client file.
func (o *installOptions) join(s *config.Serve) (secret []byte, err error) {
	if o.cluster == "" {
		for _, m := range o.masters {
			p, err := config.ParseMaster(m)
			if err != nil {
				return nil, usagef("--masters: %v", err)
			}
			s.Masters = append(s.Masters, p)
		}
		if s.Pool.Replicas == 0 {
			s.Pool.Replicas = min(config.DefaultReplicas, len(s.Masters))
		}
		rand.Read(s.Cluster[:]) // never fails
		s.Cluster[6], s.Cluster[8] = s.Cluster[6]&0x0f|0x40, s.Cluster[8]&0x3f|0x80
		return config.NewSecret(), nil
	}
	c, err := config.LoadClient(o.cluster, "")
	if err != nil {
		return nil, err
	}
	if c.Cluster.IsZero() || len(c.Named) == 0 {
		return nil, fmt.Errorf("%s does not name cluster and masters as name=host:port; take the one that the first node's install wrote", o.cluster)
	}
	s.Cluster, s.Masters = c.Cluster, c.Named
	if s.Pool.Replicas == 0 {
		s.Pool.Replicas = config.DefaultReplicas
	}
	return c.Secret, nil
}
