package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/google/go-cmp/cmp"
)

const testCluster = "0123abcd-4567-89ab-cdef-0123456789ab"

// dir makes a directory with a secret and a configuration file in it.
func dir(t *testing.T, name, text string) string {
	t.Helper()
	d := t.TempDir()
	write(t, filepath.Join(d, "secret"), strings.Repeat("s", 32), 0o600)
	file := filepath.Join(d, name)
	write(t, file, text, 0o644)
	return file
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

const good = `cluster = "` + testCluster + `"
secret_file = "secret"
name = "n1"
listen = "127.0.0.1:9501"
data = "data"
masters = ["n1=127.0.0.1:9501", "n2=127.0.0.1:9502"]
[[disk]]
path = "d1"
labels = ["ssd"]
reserve = "64MiB"
`

func TestAGoodFileFillsInDefaultsAndResolvesPaths(t *testing.T) {
	file := dir(t, "ashlar.toml", good)
	c, err := LoadServe(file)
	if err != nil {
		t.Fatal(err)
	}
	d := filepath.Dir(file)
	id, _ := ashlar.ParseClusterID(testCluster)
	want := &Serve{
		File: file, Cluster: id, Secret: []byte(strings.Repeat("s", 32)), Name: "n1",
		Listen: "127.0.0.1:9501", Advertise: "127.0.0.1:9501", Data: d + "/data",
		Master: true, Chunkserver: true,
		Masters: []Master{{"n1", "127.0.0.1:9501"}, {"n2", "127.0.0.1:9502"}},
		Disks:   []Disk{{Path: d + "/d1", Labels: []string{"ssd"}, Reserve: 64 << 20}},
		Timing:  defaultTiming,
		Pool:    Pool{Replicas: 2, RepairAfter: 10 * time.Minute},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestAWrongFileIsRefusedByLineWithWhatWouldBeRight(t *testing.T) {
	for _, tt := range []struct{ name, replace, by, want string }{
		{"unknown key", "listen =", "lisen =", `:4:1: lisen: unknown setting; did you mean "listen"?`},
		{"unknown key in a table", "labels =", "lables =", `:9:1: disk.lables: unknown setting; did you mean "disk.labels"?`},
		{"not TOML", `name = "n1"`, `name = n1`, `:3:`},
		{"wrong type", `name = "n1"`, `name = 7`, `:3:`},
		{"no cluster", "cluster = \"" + testCluster + "\"\n", "", "cluster: missing; give the cluster's UUID"},
		{"bad cluster", testCluster, "12", `:1:1: cluster: "12"; want a UUID`},
		{"bad name", `"n1"`, `"n 1"`, `:3:1: name: "n 1"; a name is`},
		{"no port", `listen = "127.0.0.1:9501"`, `listen = "127.0.0.1"`, `:4:1: listen: "127.0.0.1" is not host:port; want`},
		{"bad port", `listen = "127.0.0.1:9501"`, `listen = "127.0.0.1:95010"`, `:4:1: listen: "127.0.0.1:95010" has port "95010"`},
		{"bad master", `"n2=127.0.0.1:9502"`, `"127.0.0.1:9502"`, `:6:1: masters: "127.0.0.1:9502" is not name=host:port; want`},
		{"master twice", `"n2=127.0.0.1:9502"`, `"n1=127.0.0.1:9502"`, `:6:1: masters: "n1" is named twice`},
		{"master not named", `name = "n1"`, `name = "n9"`, `masters does not name "n9"`},
		{"disk without path", "path = \"d1\"\n", "", `:7:3: disk.path: missing`},
		{"disk twice", "reserve = \"64MiB\"\n", "[[disk]]\npath = \"./d1\"\n", `:11:1: disk.path:`},
		{"bad reserve", "64MiB", "64 parsecs", `:10:1: disk.reserve: "64 parsecs" is not a size`},
		{"bad label", `"ssd"`, `"s s d"`, `:9:1: disk.labels: "s s d"`},
		{"bad role", "data =", "roles = [\"boss\"]\ndata =", `:5:1: roles: unknown role "boss"; want`},
		{"disk without role", "data =", "roles = [\"master\"]\ndata =", `disks on a node that is no chunkserver; add chunkserver`},
		{"bad lease", "[[disk]]", "[timing]\nlease = \"soon\"\n[[disk]]", `:8:1: timing.lease: "soon"; want a duration`},
		{"witness is no word", "[[disk]]", "[timing]\nwitness = \"no\"\n[[disk]]", `:8:1: timing.witness: no; want true or false`},
		{"renew too slow", "[[disk]]", "[timing]\nrenew = \"2s\"\n[[disk]]", `:8:1: timing.renew: 2s with a lease of 3s; a lease must survive`},
		{"dead too early", "[[disk]]", "[timing]\ndead = \"2s\"\n[[disk]]", `:8:1: timing.dead: 2s with a lease of 3s;`},
		{"too many copies", "[[disk]]", "[pool]\nreplicas = 6\n[[disk]]", `:8:1: pool.replicas: 6; want 1 to 5`},
		{"advertise nowhere", `["n1=127.0.0.1:9501", "n2=127.0.0.1:9502"]`, `["n2=127.0.0.1:9502"]` + "\nroles = [\"chunkserver\"]\nadvertise = \"0.0.0.0:1\"", `:8:1: advertise: missing`},
		{"advertise elsewhere", "data =", "advertise = \"10.0.0.1:1\"\ndata =", `:5:1: advertise: is "10.0.0.1:1", but masters has this node at "127.0.0.1:9501"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.replace, tt.by, 1)
			if text == good {
				t.Fatalf("the good file does not hold %q", tt.replace)
			}
			file := dir(t, "ashlar.toml", text)
			_, err := LoadServe(file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant ...%s...", err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), file) {
				t.Errorf("error does not name the file: %v", err)
			}
			if !errors.Is(err, ashlar.Invalid) {
				t.Errorf("error is not of kind Invalid: %v", err)
			}
		})
	}
}

func TestAReadableSecretIsRefusedNamingChmod(t *testing.T) {
	file := dir(t, "ashlar.toml", good)
	secret := filepath.Join(filepath.Dir(file), "secret")
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := LoadServe(file)
	if err == nil || !strings.Contains(err.Error(), "chmod 0600 "+secret) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if _, err = LoadServe(file); err == nil || !strings.Contains(err.Error(), "does not exist; copy it from a node") {
		t.Errorf("got %v", err)
	}
}

func TestFlagsOverrideEnvironmentOverridesFile(t *testing.T) {
	file := dir(t, "ashlar.toml", good)
	env := FromEnv(func(k string) (string, bool) {
		v, ok := map[string]string{"ASHLAR_RACK": "r1", "ASHLAR_NAME": "n2", "ASHLAR_CLUSTER": "client.toml"}[k]
		return v, ok
	})
	over := append(env, Override{"name", "n1", "flag --name"}, Override{"disk", "/a,/b", "flag --disk"})
	c, err := LoadServe(file, over...)
	if err != nil {
		t.Fatal(err)
	}
	if c.Rack != "r1" || c.Name != "n1" || len(c.Disks) != 2 || c.Disks[1].Path != "/b" {
		t.Errorf("rack %q name %q disks %v", c.Rack, c.Name, c.Disks)
	}
	_, err = LoadServe(file, Override{"listen", "x", "flag --listen"})
	if err == nil || !strings.Contains(err.Error(), "flag --listen: listen:") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsWrittenReadsBack(t *testing.T) {
	file := dir(t, "ashlar.toml", good)
	c, err := LoadServe(file)
	if err != nil {
		t.Fatal(err)
	}
	c.Rack, c.Timing.Dead, c.Pool.RepairAfter = "r", 5*time.Second, time.Minute
	write(t, file, string(ServeText(c, "secret")), 0o644)
	got, err := LoadServe(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Error(diff)
	}
	cf := filepath.Join(filepath.Dir(file), "client.toml")
	write(t, cf, string(ClientText(c.Cluster, c.Masters, "secret", "main")), 0o644)
	cl, err := LoadClient(cf, "")
	if err != nil {
		t.Fatal(err)
	}
	want := &Client{File: cf, Cluster: c.Cluster, Masters: []string{"127.0.0.1:9501", "127.0.0.1:9502"}, Named: c.Masters, Secret: c.Secret, Volume: "main"}
	if diff := cmp.Diff(want, cl); diff != "" {
		t.Error(diff)
	}
}

func TestClientsAreFoundByFlagEnvironmentOrAddresses(t *testing.T) {
	file := dir(t, "client.toml", "masters = [\"127.0.0.1:1\"]\nsecret_file = \"secret\"\n")
	secret := filepath.Join(filepath.Dir(file), "secret")
	env := func(m map[string]string) func(string) (string, bool) {
		return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
	}
	c, err := FindClient("", env(map[string]string{EnvCluster: file}))
	if err != nil || c.Masters[0] != "127.0.0.1:1" {
		t.Errorf("by environment: %+v, %v", c, err)
	}
	c, err = FindClient("a:1,n2=b:2", env(map[string]string{EnvSecretFile: secret}))
	if err != nil || !cmp.Equal(c.Masters, []string{"a:1", "b:2"}) || len(c.Secret) == 0 {
		t.Errorf("by addresses: %+v, %v", c, err)
	}
	for spec, want := range map[string]string{
		"/nowhere/client.toml": "the client file does not exist",
		"a:1":                  "ASHLAR_SECRET_FILE",
	} {
		if _, err := FindClient(spec, env(nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want ...%s...", spec, err, want)
		}
	}
}

func TestAnInlineSecretWantsAPrivateFile(t *testing.T) {
	text := "masters = [\"127.0.0.1:1\"]\nsecret = \"0123456789abcdef0123\"\n"
	file := dir(t, "client.toml", text)
	if _, err := LoadClient(file, ""); err == nil || !strings.Contains(err.Error(), "chmod 0600 "+file) {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadClient(file, ""); err != nil {
		t.Error(err)
	}
}

func TestSizesReadAndPrint(t *testing.T) {
	for in, want := range map[string]uint64{
		"0": 0, "4096": 4096, "64KiB": 64 << 10, "1 GiB": 1 << 30, "10GB": 10e9, "1.5k": 1536, "2T": 2 << 40,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "1 parsec", "999999999PiB", "1..2"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d", in, got)
		}
	}
	for in, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 64 << 20: "64 MiB", 1 << 30: "1 GiB", 123 << 30: "123 GiB"} {
		if got := FormatSize(in); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", in, got, want)
		}
	}
}

// FuzzServe holds the reader of configuration files to never panicking and
// to naming a place in every refusal.
func FuzzServe(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("[[disk]]\n[[disk]]\nx=1"))
	f.Add([]byte("[timing]\nlease=\"1s\"\na.b.c=[{d=1}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var raw serveFile
		src, err := decodeBytes("f.toml", b, &raw)
		if err == nil {
			_, err = raw.validate(src)
		}
		if err != nil && !errors.Is(err, ashlar.Invalid) {
			t.Errorf("%q: %v", b, err)
		}
	})
}
