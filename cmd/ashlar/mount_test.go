package main

import (
	"reflect"
	"testing"
	"time"
)

func TestMountHelperTakesWhatMountGivesIt(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"c:v", "/mnt"}, []string{"mount", "c:v", "/mnt"}},
		{[]string{"c:v", "/mnt", "-o", "rw,soft"}, []string{"mount", "c:v", "/mnt", "-o", "rw,soft"}},
		{[]string{"c:v", "/mnt", "-sfnv", "-oro", "-t", "ashlar"}, []string{"mount", "c:v", "/mnt", "--sloppy", "--fake", "-o", "ro"}},
		{[]string{"c:v", "/mnt", "-N", "/proc/1/ns/mnt"}, []string{"mount", "c:v", "/mnt"}},
	} {
		if got := mountHelperArgs(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestDevicesNameAClusterAndAVolume(t *testing.T) {
	for in, want := range map[string][2]string{
		"/etc/ashlar/client.toml:main":  {"/etc/ashlar/client.toml", "main"},
		"10.0.0.1:9500,10.0.0.2:9500:v": {"10.0.0.1:9500,10.0.0.2:9500", "v"},
		":main":                         {"", "main"},
		"main":                          {"", "main"},
	} {
		c, v, err := splitDevice(in)
		if err != nil || c != want[0] || v != want[1] {
			t.Errorf("%q: %q %q %v", in, c, v, err)
		}
	}
	for _, in := range []string{"", "client.toml:", "/etc/client.toml"} {
		if _, _, err := splitDevice(in); exitOf(err) != exitUsage {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestMountOptionsOfFstabAreUnderstood(t *testing.T) {
	o := mountOptions{device: "c:v", dir: "/mnt", timeout: softTimeout}
	o.list = []string{"ro", "soft", "timeout=10", "_netdev", "x-systemd.automount", "noexec", "attr_timeout=0.5", "fsname=shown", "noallow_other"}
	if err := o.finish(); err != nil {
		t.Fatal(err)
	}
	f := o.fuse
	if !f.ReadOnly || f.Timeout != 10*time.Second || f.AttrTimeout != 500*time.Millisecond ||
		f.Source != "shown" || !f.OwnerOnly || !reflect.DeepEqual(f.Extra, []string{"noexec"}) {
		t.Fatalf("%+v", f)
	}
	for _, bad := range []string{"sotf", "timeout=x", "soft,timeout=0"} {
		o := mountOptions{timeout: softTimeout, list: []string{bad}}
		if bad == "soft,timeout=0" {
			o.list = []string{"soft", "timeout=0"}
		}
		if err := o.finish(); exitOf(err) != exitUsage {
			t.Errorf("%s: %v", bad, err)
		}
		if o.sloppy = true; bad == "sotf" && o.finish() != nil {
			t.Error("a sloppy mount refused an unknown option")
		}
	}
}
