package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// needsRoot skips a test that cannot make namespaces.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs ", tool, ": scripts/deps.sh installs it")
		}
	}
}

// inNamespace runs a test in a network namespace of its own, which is that of
// another process of this binary.
func inNamespace(t *testing.T, test func(t *testing.T)) {
	if os.Getenv(insideEnv) != "" {
		test(t)
		return
	}
	needsRoot(t)
	c := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// linked makes a bridge and a node with an echo server, and returns the node
// and the address of the server; stop ends the server's process.
func linked(t *testing.T) (n *node, addr string, stop func()) {
	t.Helper()
	c := &cluster{}
	t.Cleanup(c.stop)
	if err := c.bridge(); err != nil {
		t.Fatal(err)
	}
	n = newNode(t.TempDir(), 1)
	c.nodes = []*node{n}
	if err := errors.Join(n.connect(), os.Mkdir(n.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", n.ns, self, "-test.run", "^TestEchoServer$")
	cmd.Env = append(os.Environ(), echoEnv+"="+n.addr())
	p, err := start(cmd, n.file("echo"))
	if err != nil {
		t.Fatal(err)
	}
	n.proc = p
	if err := poll(t.Context(), 10*time.Second, func() error {
		conn, err := net.Dial("tcp", n.addr())
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n, n.addr(), func() { c.kill(n) }
}

const echoEnv = "ASHLAR_CHAOS_ECHO"

// TestEchoServer is the other process of the tests below.
func TestEchoServer(t *testing.T) {
	addr := os.Getenv(echoEnv)
	if addr == "" {
		t.Skip("it serves other tests")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// ask sends a byte and waits for it to come back.
func ask(c net.Conn, within time.Duration) (time.Duration, error) {
	began := time.Now()
	if err := c.SetDeadline(began.Add(within)); err != nil {
		return 0, err
	}
	if _, err := c.Write([]byte{7}); err != nil {
		return 0, err
	}
	var b [1]byte
	_, err := io.ReadFull(c, b[:])
	return time.Since(began), err
}

func TestASlowLinkDelaysConnectionsThatStandAndLosesNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		n, addr, _ := linked(t)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const delay = 60 * time.Millisecond
		s, narrow := &shape{delay: delay}, &shape{rate: 1 << 20}
		if err := n.slow(s); err != nil {
			t.Fatal(err)
		}
		if took, err := ask(c, 10*time.Second); err != nil || took < 2*delay {
			t.Errorf("there and back took %v: %v", took, err)
		}
		if took, err := echo(c, 2<<20); err != nil || took < 2*delay { // in large segments
			t.Errorf("2 MiB took %v: %v", took, err)
		}
		if lost := n.relay.lost(); lost != 0 {
			t.Errorf("%d frames were lost", lost)
		}
		if err := n.slow(narrow); err != nil {
			t.Fatal(err)
		}
		if took, err := echo(c, 1<<20); err != nil || took < time.Second*8/10 {
			t.Errorf("1 MiB at 1 MiB/s took %v: %v", took, err)
		}
		far := &shape{peer: netip.MustParseAddr(network + "77"), delay: time.Hour} // somebody else
		if err := errors.Join(n.slow(far), n.fast(t.Context(), narrow), n.fast(t.Context(), s)); err != nil {
			t.Fatal(err)
		}
		if took, err := ask(c, 10*time.Second); err != nil || far.met.Load() > 0 || n.relay == nil {
			t.Errorf("with somebody else far there and back took %v: %v, %d frames met it", took, err, far.met.Load())
		}
		if err := n.fast(t.Context(), far); err != nil || n.relay != nil {
			t.Fatal(err)
		}
		if _, err := echo(c, 8<<20); err != nil {
			t.Errorf("over the fast link again: %v", err)
		}
		if s.met.Load() == 0 || narrow.met.Load() == 0 {
			t.Errorf("%d and %d frames were held", s.met.Load(), narrow.met.Load())
		}
	})
}

// echo sends bytes and compares what comes back.
func echo(c net.Conn, size int) (time.Duration, error) {
	began := time.Now()
	out := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range out {
		out[i] = byte(rng.Uint32())
	}
	if err := c.SetDeadline(began.Add(30 * time.Second)); err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(out)
		sent <- err
	}()
	in := make([]byte, size)
	_, err := io.ReadFull(c, in)
	if err = errors.Join(err, <-sent); err == nil && !bytes.Equal(in, out) {
		err = errors.New("something else came back")
	}
	return time.Since(began), err
}

// Proof of death needs a FIN and a refused connect. A relay that ends gives
// neither for a node that lives; the end of a process shows through one that
// runs.
func TestARelayThatEndsSaysNothingOfTheDead(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		n, addr, stop := linked(t)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := &shape{delay: 20 * time.Millisecond}
		if err := n.slow(s); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(c, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := n.relay.close(); err != nil { // as if it had died
			t.Fatal(err)
		}
		if _, err := ask(c, time.Second); !isTimeout(err) {
			t.Errorf("of a node behind nothing a connection says %v", err)
		}
		if err := dial(t.Context(), addr); !isTimeout(err) {
			t.Errorf("a node behind nothing answers with %v", err)
		}
		if n.relay, err = newRelay("v1", "w1"); err != nil {
			t.Fatal(err)
		}
		n.relay.add(s)
		var b [1]byte
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != 7 {
			t.Errorf("the connection did not live on: %v", err)
		}
		stop()
		if _, err := io.ReadFull(c, b[:]); !errors.Is(err, io.EOF) {
			t.Errorf("the end of the process shows as %v", err)
		}
		if err := dial(t.Context(), addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("where nobody listens any more, %v", err)
		}
	})
}

func dial(ctx context.Context, addr string) error {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		err = c.Close()
	}
	return err
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
