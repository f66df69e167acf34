package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlarfs/ashlar"
)

// DefaultClientFile is where an installed machine keeps its client file.
const DefaultClientFile = "/etc/ashlar/client.toml"

// Environment of clients.
const (
	EnvCluster    = "ASHLAR_CLUSTER"
	EnvSecretFile = "ASHLAR_SECRET_FILE"
)

// Client is what one needs to use a cluster.
type Client struct {
	File    string           // where it came from, "" for a list of addresses
	Cluster ashlar.ClusterID // zero matches any cluster that knows the secret
	Masters []string         // host:port of each
	Named   []Master         // the same with their names, if all have one
	Secret  []byte
	Volume  string // the default volume, "" for none
}

type clientFile struct {
	Cluster    string   `toml:"cluster"`
	Masters    []string `toml:"masters"`
	SecretFile string   `toml:"secret_file"`
	Secret     string   `toml:"secret"`
	Volume     string   `toml:"volume"`
}

// FindClient resolves how a user names a cluster: spec if given, then the
// environment, then DefaultClientFile. A spec is a client file or a list of
// addresses separated by commas.
func FindClient(spec string, lookup func(string) (string, bool)) (*Client, error) {
	if spec == "" {
		spec, _ = lookup(EnvCluster)
	}
	if spec == "" {
		if _, err := os.Stat(DefaultClientFile); err != nil {
			return nil, &Error{Where: DefaultClientFile, What: "no cluster named, and this file does not exist",
				Want: "name a cluster with --cluster FILE or " + EnvCluster + ", or start one with `ashlar dev up --dir DIR`"}
		}
		spec = DefaultClientFile
	}
	secretFile, _ := lookup(EnvSecretFile)
	return LoadClient(spec, secretFile)
}

// LoadClient reads a client file, or takes a list of addresses separated by
// commas. secretFile overrides the secret of a file and gives that of a list,
// which is otherwise the secret beside DefaultClientFile.
func LoadClient(spec, secretFile string) (*Client, error) {
	if _, err := os.Stat(spec); err != nil && isAddrs(spec) {
		return clientFromAddrs(spec, secretFile)
	}
	var raw clientFile
	src, err := decode(spec, &raw)
	if os.IsNotExist(err) {
		return nil, &Error{Where: spec, What: "the client file does not exist",
			Want: "name the client.toml that `ashlar dev up` or `ashlar install` wrote, or master addresses host:port,host:port"}
	}
	if err != nil {
		return nil, err
	}
	return raw.validate(src, secretFile)
}

func isAddrs(s string) bool {
	for _, a := range split(s) {
		if _, err := checkAddr(bare(a), false); err != nil {
			return false
		}
	}
	return s != "" && !strings.Contains(s, "/")
}

// bare takes the name off "name=host:port".
func bare(s string) string {
	if _, addr, ok := strings.Cut(s, "="); ok {
		return addr
	}
	return s
}

func clientFromAddrs(spec, secretFile string) (*Client, error) {
	if secretFile == "" {
		secretFile = filepath.Join(filepath.Dir(DefaultClientFile), "secret")
	}
	secret, err := ReadSecret(secretFile)
	if err != nil {
		return nil, fmt.Errorf("a cluster named by addresses needs the secret in %s: %w", EnvSecretFile, err)
	}
	c := &Client{Secret: secret}
	for _, a := range split(spec) {
		c.Masters = append(c.Masters, bare(a))
	}
	return c, nil
}

func (f *clientFile) validate(src *source, secretFile string) (*Client, error) {
	c := &Client{File: src.file, Volume: f.Volume}
	var a all
	if f.Cluster != "" {
		id, err := ashlar.ParseClusterID(f.Cluster)
		if err != nil {
			a.addf(src.at("cluster"), "cluster", "want a UUID, 8-4-4-4-12 hexadecimal digits", "%q", f.Cluster)
		}
		c.Cluster = id
	}
	for _, m := range f.Masters {
		addr := bare(m)
		if _, err := checkAddr(addr, false); err != nil {
			a.addf(src.at("masters"), "masters", `want host:port, such as "10.0.0.1:9500"`, "%v", err)
		}
		c.Masters = append(c.Masters, addr)
		if n, err := ParseMaster(m); err == nil {
			c.Named = append(c.Named, n)
		}
	}
	if len(c.Named) < len(f.Masters) {
		c.Named = nil
	}
	if len(f.Masters) == 0 {
		a.addf(src.at("masters"), "masters", `want masters = ["10.0.0.1:9500"]`, "missing")
	}
	if f.Volume != "" && !ValidName(f.Volume) {
		a.addf(src.at("volume"), "volume", NameRule, "%q", f.Volume)
	}
	f.secret(c, src, secretFile, &a)
	if err := a.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (f *clientFile) secret(c *Client, src *source, override string, a *all) {
	switch {
	case override != "" || f.SecretFile != "":
		file := override
		if file == "" {
			file = src.resolve(f.SecretFile)
		}
		s, err := ReadSecret(file)
		if err != nil {
			a.addf(src.at("secret_file"), "secret_file", "", "%v", err)
		}
		c.Secret = s
	case f.Secret != "":
		if fi, err := os.Stat(src.file); err == nil {
			a.add(private(src.file, fi))
		}
		if len(f.Secret) < SecretMin {
			a.addf(src.at("secret"), "secret", fmt.Sprintf("at least %d are needed", SecretMin), "%d bytes long", len(f.Secret))
		}
		c.Secret = []byte(f.Secret)
	default:
		a.addf(src.at("secret_file"), "secret_file", "give the file with the cluster secret, copied from a node", "missing")
	}
}

// abs makes a path given on the command line or in the environment absolute:
// it is relative to where the user is, not to a configuration file.
func abs(path string) string {
	if p, err := filepath.Abs(path); err == nil && path != "" {
		return p
	}
	return path
}
