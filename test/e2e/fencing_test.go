package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/config"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// letter is n bytes of one letter.
func letter(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

// put writes a file through a mount and syncs it.
func (c *cluster) put(name string, data []byte) {
	c.t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		c.t.Fatal(err)
	}
}

// want reads a file with nothing cached and compares it.
func (c *cluster) want(name string, data []byte) {
	c.t.Helper()
	c.freshMount(func(dir string) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			c.t.Fatal(err)
		}
		for i := range data {
			if i >= len(got) || got[i] != data[i] {
				c.t.Fatalf("%s: %d bytes; byte %d is not what was written last", name, len(got), i)
			}
		}
	})
}

// writerEnv names the file that this binary, run by a test, writes to, and
// writerBytes how much. Whoever starts processes closes copies of its files, and
// would wait for a mount that is stopped.
const (
	writerEnv   = "ASHLAR_E2E_WRITER"
	writerBytes = 8 << 20
)

// writer is an application: it writes, says so, and syncs when it is told to.
func writer(name string) int {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(letter('b', writerBytes), 0)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("written")
	bufio.NewScanner(os.Stdin).Scan()
	if err := f.Sync(); err != nil {
		fmt.Println(err)
		return 0
	}
	fmt.Println("ok")
	return 0
}

// A mount is stopped with writes in its buffers, on their way, and half done.
// Its session is lost, another writes the same blocks, the first goes on: not
// one of its bytes lands, and its application is told. I-7
func TestAPausedMountsWritesNeverLandOnThoseThatCameAfterItsLoss(t *testing.T) {
	c := start(t)
	const size = writerBytes
	c.put(filepath.Join(c.mnt, "f"), letter('a', size))
	dir := filepath.Join(c.dir, "second")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	second := exec.Command(binary, "mount", "--foreground", filepath.Join(c.dir, "client.toml")+":main", dir)
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = second.Process.Signal(syscall.SIGCONT)
		_ = second.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = second.Process.Kill() })
		_ = second.Wait() // it has lost data, and says so
		kill.Stop()
		_ = syscall.Unmount(dir, syscall.MNT_DETACH) // if it could not
	}()
	c.poll("the second mount is there", func() bool { _, err := os.Stat(filepath.Join(dir, "f")); return err == nil })
	w := exec.Command(os.Args[0])
	w.Env = append(os.Environ(), writerEnv+"="+filepath.Join(dir, "f"))
	in, err := w.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Process.Kill(); _ = w.Wait() }()
	said := bufio.NewScanner(out)
	if !said.Scan() || said.Text() != "written" {
		t.Fatalf("the writer says %q, %v", said.Text(), said.Err())
	}
	if err := second.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.poll("its session is lost and fenced", func() bool {
		st, ok := c.status()
		for _, s := range st.Sessions {
			ok = ok && !strings.HasSuffix(s.Name, dir)
		}
		return ok
	})
	c.put(filepath.Join(c.mnt, "f"), letter('c', size))
	if err := second.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("sync\n")); err != nil {
		t.Fatal(err)
	}
	if !said.Scan() || said.Text() == "ok" {
		t.Errorf("its application was told %q", said.Text())
	}
	t.Log("its application was told: ", said.Text())
	c.want("f", letter('c', size))
}

// stranger is a client that holds on to what it once knew.
type stranger struct {
	rpc  *rpc.Client
	conn *masterconn.Conn
}

func (c *cluster) stranger() *stranger {
	c.t.Helper()
	conf, err := config.LoadClient(filepath.Join(c.dir, "client.toml"), "")
	if err != nil {
		c.t.Fatal(err)
	}
	s := &stranger{rpc: rpc.NewClient(rpc.Identity{
		Cluster: conf.Cluster, Role: wire.RoleClient, Name: "stranger", Incarnation: 77, Secret: conf.Secret,
	}, rpc.ClientOptions{})}
	s.conn, err = masterconn.Dial(c.ctx, masterconn.Config{RPC: s.rpc, Masters: conf.Masters, Name: "stranger"})
	if err != nil {
		c.t.Fatal(err)
	}
	s.rpc.OnConnect(func(_ context.Context, _ string, call func(req, reply wire.Message) error) error {
		return call(&wire.Attach{Ticket: s.conn.Ticket()}, nil)
	})
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.conn.Close(ctx) // the cluster may be gone
		s.rpc.Close()
	})
	return s
}

// pid is the process of a node.
func (c *cluster) pid(name string) int {
	c.t.Helper()
	for _, n := range c.devStatus().Nodes {
		if n.Name == name {
			return n.PID
		}
	}
	c.t.Fatalf("no node %s", name)
	return 0
}

func (c *cluster) signal(name string, s syscall.Signal) {
	c.t.Helper()
	if err := syscall.Kill(c.pid(name), s); err != nil {
		c.t.Fatal(err)
	}
}

// A primary is stopped with reads and a write in its socket. Another takes its
// place and a write; it wakes, answers none of them and applies nothing. Then
// the same with the leader: what it is asked while it sleeps it does not answer
// from what it knew. I-2, I-4, I-6
func TestPausedPrimariesAndLeadersAnswerNothingWhenTheyWake(t *testing.T) {
	c := start(t)
	name := filepath.Join(c.mnt, "g")
	c.put(name, letter('a', 8192))
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	s := c.stranger()
	var e wire.Entry
	if err := s.conn.Do(c.ctx, ashlar.Cred{}, &wire.GetAttr{Inode: ashlar.Inode(st.Ino)}, &e); err != nil {
		t.Fatal(err)
	}
	pg, _ := e.Object.Layout.Group(0)
	var groups wire.GroupsReply
	if err := s.conn.Do(c.ctx, ashlar.Cred{Checked: true}, &wire.GetGroups{Groups: []ashlar.PGID{pg}}, &groups); err != nil {
		t.Fatal(err)
	}
	g := groups.Groups[0]
	addr := g.Members[g.Primary()].Addr
	victim := ""
	for _, n := range c.devStatus().Nodes {
		if n.Addr == addr {
			victim = n.Name
		}
	}
	at := wire.Address{Group: pg, Epoch: g.Epoch, Session: s.conn.Session(), Layer: e.Object.Layer, Gen: e.Object.Gen}
	var r wire.ReadReply
	if err := s.rpc.Call(c.ctx, addr, &wire.Read{Address: at, Len: 8192}, &r); err != nil || string(r.Data) != string(letter('a', 8192)) {
		t.Fatalf("before: %d bytes, %v", len(r.Data), err)
	}

	c.signal(victim, syscall.SIGSTOP)
	const reads = 8
	answers := make(chan error, reads+1)
	for range reads {
		go func() {
			var r wire.ReadReply
			answers <- s.rpc.Call(c.ctx, addr, &wire.Read{Address: at, Len: 8192}, &r)
		}()
	}
	go func() {
		data := letter('z', 4096)
		answers <- s.rpc.Call(c.ctx, addr, &wire.Write{
			Address: at, Seq: 1, Lowest: 1, Len: 4096, ChunkSize: e.Object.Layout.ChunkSize, Data: data, Sums: checksum.Append(nil, 0, data),
		}, nil)
	}()
	c.put(name, letter('b', 8192)) // returns once another is primary
	c.signal(victim, syscall.SIGCONT)
	for range reads + 1 {
		if err := <-answers; err == nil {
			t.Error("a primary that was paused has answered")
		}
	}
	c.want("g", letter('b', 8192))
	c.redundant()

	lead := c.leader()
	leadAddr := ""
	for _, n := range c.devStatus().Nodes {
		if n.Name == lead {
			leadAddr = n.Addr
		}
	}
	if err := s.rpc.Call(c.ctx, leadAddr, &wire.GetStatus{}, &wire.StatusReply{}); err != nil {
		t.Fatal(err)
	}
	c.signal(lead, syscall.SIGSTOP)
	for range reads {
		go func() {
			var r wire.StatusReply
			answers <- s.rpc.Call(c.ctx, leadAddr, &wire.GetStatus{}, &r)
		}()
	}
	c.put(filepath.Join(c.mnt, "h"), letter('h', 4096)) // returns once another leads
	c.signal(lead, syscall.SIGCONT)
	for range reads {
		if err := <-answers; err == nil {
			t.Error("a leader that was paused has answered")
		}
	}
	c.want("h", letter('h', 4096))
	c.redundant()
}
