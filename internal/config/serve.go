package config

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlarfs/ashlar"
)

// Defaults of a node.
const (
	DefaultPort        = 9500
	DefaultServeFile   = "/etc/ashlar/ashlar.toml"
	DefaultReplicas    = 2
	DefaultLease       = 3 * time.Second
	DefaultRenew       = 500 * time.Millisecond
	DefaultDead        = 3500 * time.Millisecond
	DefaultElection    = 800 * time.Millisecond
	DefaultRepairAfter = 10 * time.Minute
)

// MastersMax is the most masters a configuration may name.
const MastersMax = 5

// ClockSkewMax is how far a node's time of day may be from the leader's
// before logs warn. Leases do not depend on it.
const ClockSkewMax = time.Minute

// Serve is the whole configuration of a node, validated, with defaults
// filled in and paths resolved.
type Serve struct {
	File        string // where it came from, "" if from flags alone
	Cluster     ashlar.ClusterID
	Secret      []byte
	Name        string
	Listen      string // host:port
	Advertise   string // host:port that other nodes and clients use
	Data        string // directory of the node's identity and metadata
	Rack        string
	Master      bool
	Chunkserver bool
	Masters     []Master
	Disks       []Disk
	Timing      Timing
	Pool        Pool
	Pprof       string // address of the profiling endpoint, "" for none
}

// Master names one member of the consensus group and where it is.
type Master struct {
	Name string
	Addr string
}

// Disk is one directory that a chunkserver keeps chunks in.
type Disk struct {
	Path    string
	Labels  []string
	Reserve uint64 // bytes kept free; 0 for the default
}

// Timing is how fast death is noticed. All nodes of a cluster must agree.
type Timing struct {
	Lease    time.Duration // how long a lease holds after a renewal
	Renew    time.Duration // between renewals
	Dead     time.Duration // silence after which a node or session is given up
	Election time.Duration // silence after which a master stands for leader
	// NoWitness: the end of a process is never taken for proven; silence alone
	// decides. For networks in which nodes reach each other through a proxy.
	NoWitness bool
}

// Pool is the policy of the pool that a new cluster starts with.
type Pool struct {
	Replicas    int
	RepairAfter time.Duration // absence after which a disk's copies are made elsewhere
}

// serveFile is Serve as it stands in a file. Pointers tell what was not said.
type serveFile struct {
	Cluster    string   `toml:"cluster"`
	SecretFile string   `toml:"secret_file"`
	Name       string   `toml:"name"`
	Listen     string   `toml:"listen"`
	Advertise  string   `toml:"advertise"`
	Data       string   `toml:"data"`
	Rack       string   `toml:"rack"`
	Roles      []string `toml:"roles"`
	Masters    []string `toml:"masters"`
	Pprof      string   `toml:"pprof"`
	Disk       []struct {
		Path    string   `toml:"path"`
		Labels  []string `toml:"labels"`
		Reserve string   `toml:"reserve"`
	} `toml:"disk"`
	Timing struct {
		Lease    string `toml:"lease"`
		Renew    string `toml:"renew"`
		Dead     string `toml:"dead"`
		Election string `toml:"election"`
		Witness  any    `toml:"witness"` // a bool
	} `toml:"timing"`
	Pool struct {
		Replicas    *int   `toml:"replicas"`
		RepairAfter string `toml:"repair_after"`
	} `toml:"pool"`
}

// Override is a value given outside the file.
type Override struct {
	Key   string // as in the file: "listen", "timing.lease"
	Value string // lists are separated by commas
	Where string // "flag --listen"
}

// Settable lists the keys that flags and environment variables may override,
// with a line of help each.
var Settable = []struct{ Key, Help string }{
	{"cluster", "UUID of the cluster"},
	{"secret_file", "file with the cluster secret, mode 0600"},
	{"name", "name of this node"},
	{"listen", "host:port to listen on"},
	{"advertise", "host:port others reach this node at"},
	{"data", "directory of the node's identity and metadata"},
	{"rack", "rack label, for the failure domain rack"},
	{"roles", "master, chunkserver or both, separated by commas"},
	{"masters", "name=host:port of each master, separated by commas"},
	{"disk", "directory of a disk, or several separated by commas; replaces those of the file"},
	{"pprof", "host:port of the profiling endpoint"},
}

// EnvPrefix begins the environment variables that override settings:
// ASHLAR_LISTEN overrides listen.
const EnvPrefix = "ASHLAR_"

// FromEnv returns the overrides in an environment. ASHLAR_CLUSTER names a
// cluster for clients and is not one of them.
func FromEnv(lookup func(string) (string, bool)) []Override {
	var out []Override
	for _, s := range Settable {
		name := EnvPrefix + strings.ToUpper(s.Key)
		if s.Key == "cluster" {
			name = EnvPrefix + "CLUSTER_ID"
		}
		if v, ok := lookup(name); ok {
			out = append(out, Override{Key: s.Key, Value: v, Where: "environment " + name})
		}
	}
	return out
}

// LoadServe reads a node's configuration from a file ("" for none) and lays
// overrides over it, later ones over earlier ones.
func LoadServe(file string, over ...Override) (*Serve, error) {
	var raw serveFile
	src := &source{places: map[string]string{}}
	if file != "" {
		s, err := decode(file, &raw)
		if os.IsNotExist(err) {
			return nil, &Error{Where: file, What: "the configuration file does not exist",
				Want: "make one with `ashlar install`, or name another with --config"}
		}
		if err != nil {
			return nil, err
		}
		src = s
	}
	for _, o := range over {
		if err := raw.set(src, o); err != nil {
			return nil, err
		}
	}
	return raw.validate(src)
}

// set lays one override over the file.
func (f *serveFile) set(src *source, o Override) error {
	switch o.Key {
	case "cluster":
		f.Cluster = o.Value
	case "secret_file":
		f.SecretFile = abs(o.Value)
	case "name":
		f.Name = o.Value
	case "listen":
		f.Listen = o.Value
	case "advertise":
		f.Advertise = o.Value
	case "data":
		f.Data = abs(o.Value)
	case "rack":
		f.Rack = o.Value
	case "roles":
		f.Roles = split(o.Value)
	case "masters":
		f.Masters = split(o.Value)
	case "pprof":
		f.Pprof = o.Value
	case "disk":
		f.Disk = f.Disk[:0:0]
		for _, p := range split(o.Value) {
			f.Disk = append(f.Disk, struct {
				Path    string   `toml:"path"`
				Labels  []string `toml:"labels"`
				Reserve string   `toml:"reserve"`
			}{Path: abs(p)})
		}
	default:
		return &Error{Where: o.Where, Key: o.Key, What: "cannot be overridden"}
	}
	for k := range src.places {
		if k == o.Key || strings.HasPrefix(k, o.Key+"[") {
			delete(src.places, k)
		}
	}
	src.places[o.Key] = o.Where
	return nil
}

func split(s string) []string {
	var out []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidName tells whether s can name a node, pool or volume.
func ValidName(s string) bool { return nameRE.MatchString(s) }

// NameRule says in words what ValidName wants.
const NameRule = "a name is 1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit"

func (f *serveFile) validate(src *source) (*Serve, error) {
	c := &Serve{File: src.file, Rack: f.Rack, Pprof: f.Pprof}
	var a all
	f.identity(c, src, &a)
	f.roles(c, src, &a)
	f.addresses(c, src, &a)
	f.disks(c, src, &a)
	f.timing(c, src, &a)
	f.pool(c, src, &a)
	if err := a.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (f *serveFile) identity(c *Serve, src *source, a *all) {
	var err error
	if f.Cluster == "" {
		a.addf(src.at("cluster"), "cluster", "give the cluster's UUID; `ashlar install` makes one", "missing")
	} else if c.Cluster, err = ashlar.ParseClusterID(f.Cluster); err != nil || c.Cluster.IsZero() {
		a.addf(src.at("cluster"), "cluster", "want a UUID, 8-4-4-4-12 hexadecimal digits, not all zero", "%q", f.Cluster)
	}
	if f.SecretFile == "" {
		a.addf(src.at("secret_file"), "secret_file", "give the file with the cluster secret; `ashlar install` makes one", "missing")
	} else if c.Secret, err = ReadSecret(src.resolve(f.SecretFile)); err != nil {
		a.addf(src.at("secret_file"), "secret_file", "", "%v", err)
	}
	c.Name = f.Name
	if !ValidName(f.Name) {
		what := fmt.Sprintf("%q", f.Name)
		if f.Name == "" {
			what = "missing"
		}
		a.addf(src.at("name"), "name", NameRule, "%s", what)
	}
	if len(f.Rack) > 255 {
		a.addf(src.at("rack"), "rack", "a rack label is at most 255 bytes", "%d bytes long", len(f.Rack))
	}
	if f.Data == "" {
		a.addf(src.at("data"), "data", "give a directory on a durable disk, such as /var/lib/ashlar", "missing")
	}
	c.Data = src.resolve(f.Data)
}

func (f *serveFile) roles(c *Serve, src *source, a *all) {
	if len(f.Roles) == 0 {
		c.Master, c.Chunkserver = true, len(f.Disk) > 0
		return
	}
	for _, r := range f.Roles {
		switch r {
		case "master":
			c.Master = true
		case "chunkserver":
			c.Chunkserver = true
		default:
			a.addf(src.at("roles"), "roles", `want "master", "chunkserver" or both`, "unknown role %q", r)
		}
	}
}

func (f *serveFile) addresses(c *Serve, src *source, a *all) {
	c.Listen = f.Listen
	if c.Listen == "" {
		c.Listen = net.JoinHostPort("", strconv.Itoa(DefaultPort))
	}
	host, err := checkAddr(c.Listen, true)
	if err != nil {
		a.addf(src.at("listen"), "listen", `want host:port, such as "0.0.0.0:9500"`, "%v", err)
	}
	names := f.masters(c, src, a)
	c.Advertise = f.Advertise
	if c.Advertise == "" {
		if addr, ok := names[f.Name]; ok {
			c.Advertise = addr
		} else {
			c.Advertise = c.Listen
		}
	}
	ahost, err := checkAddr(c.Advertise, false)
	switch {
	case err != nil && f.Advertise != "":
		a.addf(src.at("advertise"), "advertise", `want host:port that other machines reach, such as "10.0.0.1:9500"`, "%v", err)
	case err != nil || unspecified(ahost):
		a.addf(src.at("advertise"), "advertise", `want host:port that other machines reach, such as "10.0.0.1:9500"`,
			"missing, and listen (%q) is no address to reach this node at", host)
	}
	if addr, ok := names[f.Name]; ok && addr != c.Advertise {
		a.addf(src.at("advertise"), "advertise", "the two must be equal", "is %q, but masters has this node at %q", c.Advertise, addr)
	}
	if f.Pprof != "" {
		if _, err := checkAddr(f.Pprof, true); err != nil {
			a.addf(src.at("pprof"), "pprof", `want host:port, such as "127.0.0.1:6060"`, "%v", err)
		}
	}
}

// masters reads the list of masters and returns addresses by name.
func (f *serveFile) masters(c *Serve, src *source, a *all) map[string]string {
	const want = `want masters = ["n1=10.0.0.1:9500", "n2=10.0.0.2:9500", "n3=10.0.0.3:9500"]`
	names, addrs := map[string]string{}, map[string]string{}
	for _, s := range f.Masters {
		m, err := ParseMaster(s)
		if err != nil {
			a.addf(src.at("masters"), "masters", want, "%v", err)
			continue
		}
		if _, ok := names[m.Name]; ok {
			a.addf(src.at("masters"), "masters", "every master has its own name", "%q is named twice", m.Name)
		}
		if other, ok := addrs[m.Addr]; ok {
			a.addf(src.at("masters"), "masters", "every master has its own address", "%s and %s are both at %s", other, m.Name, m.Addr)
		}
		names[m.Name], addrs[m.Addr] = m.Addr, m.Name
		c.Masters = append(c.Masters, m)
	}
	switch n := len(f.Masters); {
	case n == 0:
		a.addf(src.at("masters"), "masters", want, "missing")
	case n > MastersMax:
		a.addf(src.at("masters"), "masters", "1, 3 or 5 keep working best", "%d masters; at most %d", n, MastersMax)
	}
	return names
}

// ParseMaster reads "name=host:port".
func ParseMaster(s string) (Master, error) {
	name, addr, ok := strings.Cut(s, "=")
	if !ok || !ValidName(name) {
		return Master{}, fmt.Errorf("%q is not name=host:port", s)
	}
	if _, err := checkAddr(addr, false); err != nil {
		return Master{}, err
	}
	return Master{Name: name, Addr: addr}, nil
}

// checkAddr verifies host:port and returns the host. Only a listening
// address may leave the host out.
func checkAddr(s string, listen bool) (host string, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q has port %q; want 1 to 65535", s, port)
	}
	if host == "" && !listen {
		return "", fmt.Errorf("%q has no host", s)
	}
	return host, nil
}

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func (f *serveFile) disks(c *Serve, src *source, a *all) {
	seen := map[string]int{}
	for i, d := range f.Disk {
		key := fmt.Sprintf("disk[%d]", i)
		out := Disk{Path: src.resolve(d.Path), Labels: d.Labels}
		if d.Path == "" {
			a.addf(src.at(key), "disk.path", "give a directory on the disk", "missing")
		} else if j, ok := seen[out.Path]; ok {
			a.addf(src.at(key+".path"), "disk.path", "every disk has its own directory", "%s is disk %d already", out.Path, j+1)
		}
		seen[out.Path] = i
		if d.Reserve != "" {
			n, err := ParseSize(d.Reserve)
			if err != nil {
				a.addf(src.at(key+".reserve"), "disk.reserve", "", "%v", err)
			}
			out.Reserve = n
		}
		for _, l := range d.Labels {
			if !ValidName(l) {
				a.addf(src.at(key+".labels"), "disk.labels", "a label is made like a name: "+NameRule, "%q", l)
			}
		}
		c.Disks = append(c.Disks, out)
	}
	if c.Chunkserver && len(f.Disk) == 0 {
		a.addf(src.at("disk"), "disk", "add a [[disk]] with a path, or take chunkserver out of roles", "a chunkserver without a disk")
	}
	if !c.Chunkserver && len(f.Disk) > 0 {
		a.addf(src.at("disk"), "disk", "add chunkserver to roles, or take the disks away", "disks on a node that is no chunkserver")
	}
	if c.Master && c.Name != "" && !slices.ContainsFunc(c.Masters, func(m Master) bool { return m.Name == c.Name }) && len(c.Masters) > 0 {
		a.addf(src.at("roles"), "roles", "add "+c.Name+"=host:port to masters, or take master out of roles",
			"this node is to be a master, but masters does not name %q", c.Name)
	}
}

func (f *serveFile) timing(c *Serve, src *source, a *all) {
	t := &c.Timing
	for _, x := range []struct {
		key, text string
		to        *time.Duration
		def       time.Duration
	}{
		{"timing.lease", f.Timing.Lease, &t.Lease, DefaultLease},
		{"timing.renew", f.Timing.Renew, &t.Renew, DefaultRenew},
		{"timing.dead", f.Timing.Dead, &t.Dead, DefaultDead},
		{"timing.election", f.Timing.Election, &t.Election, DefaultElection},
	} {
		duration(x.key, x.text, x.to, x.def, 10*time.Millisecond, 10*time.Minute, src, a)
	}
	if w, ok := f.Timing.Witness.(bool); ok {
		t.NoWitness = !w
	} else if f.Timing.Witness != nil {
		a.addf(src.at("timing.witness"), "timing.witness", "want true or false", "%v", f.Timing.Witness)
	}
	if t.Renew > t.Lease/3 {
		a.addf(src.at("timing.renew"), "timing.renew", "a lease must survive two lost renewals: at most a third of lease",
			"%v with a lease of %v", t.Renew, t.Lease)
	}
	if t.Dead <= t.Lease {
		a.addf(src.at("timing.dead"), "timing.dead", "a node is given up only after its lease is surely over: more than lease",
			"%v with a lease of %v", t.Dead, t.Lease)
	}
}

func duration(key, text string, to *time.Duration, def, lo, hi time.Duration, src *source, a *all) {
	*to = def
	if text == "" {
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		a.addf(src.at(key), key, `want a duration such as "500ms", "3s" or "10m"`, "%q", text)
		return
	}
	if d < lo || d > hi {
		a.addf(src.at(key), key, fmt.Sprintf("want %v to %v", lo, hi), "%v", d)
		return
	}
	*to = d
}

func (f *serveFile) pool(c *Serve, src *source, a *all) {
	c.Pool.Replicas = DefaultReplicas
	if r := f.Pool.Replicas; r != nil {
		c.Pool.Replicas = *r
		if *r < 1 || *r > ashlar.ReplicasMax {
			a.addf(src.at("pool.replicas"), "pool.replicas", fmt.Sprintf("want 1 to %d", ashlar.ReplicasMax), "%d", *r)
		}
	}
	duration("pool.repair_after", f.Pool.RepairAfter, &c.Pool.RepairAfter, DefaultRepairAfter, time.Second, 30*24*time.Hour, src, a)
}
