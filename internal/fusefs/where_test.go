package fusefs

import (
	"strings"
	"testing"
)

func TestAPathIsFoundInItsMount(t *testing.T) {
	const info = `22 1 8:1 / / rw - ext4 /dev/sda1 rw
40 22 0:50 / /mnt/main rw - fuse.ashlar /etc/ashlar/client.toml:main rw
41 22 0:50 /sub\040dir /srv/bound rw shared:1 - fuse.ashlar /etc/ashlar/client.toml:main rw
42 40 0:51 / /mnt/main/tmp rw - tmpfs tmpfs rw
43 22 0:52 / /mnt/two rw - ext4 /dev/sdb rw
44 22 0:53 / /mnt/two rw - fuse.ashlar a\040b:two rw
`
	for _, c := range []struct {
		path, source, inside string
		ok                   bool
	}{
		{"/mnt/main", "/etc/ashlar/client.toml:main", "/", true},
		{"/mnt/main/a/b", "/etc/ashlar/client.toml:main", "/a/b", true},
		{"/mnt/mainly/a", "/dev/sda1", "/mnt/mainly/a", false},
		{"/srv/bound/x", "/etc/ashlar/client.toml:main", "/sub dir/x", true},
		{"/mnt/main/tmp/x", "tmpfs", "/x", false},
		{"/mnt/two/x", "a b:two", "/x", true}, // mounted over the other
		{"/", "/dev/sda1", "/", false},
	} {
		source, inside, ok, err := scanWhere(strings.NewReader(info), c.path)
		if err != nil || source != c.source || inside != c.inside || ok != c.ok {
			t.Errorf("%s: %q %q %v %v", c.path, source, inside, ok, err)
		}
	}
}
