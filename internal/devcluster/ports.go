package devcluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	"github.com/ashlarfs/ashlar"
)

// Ports that are chosen lie below the range from which the kernel takes those
// of outgoing connections (32768 and up), so that a node that is down cannot
// lose its port to somebody's connection.
const (
	portLow   = 20000
	portHigh  = 32000
	portTries = 1000
)

// choosePorts returns n addresses that are free now: from base on in order,
// or anywhere if base is 0.
func choosePorts(n, base int, taken map[string]bool) ([]string, error) {
	var out []string
	if base > 0 {
		for i := range n {
			addr := loopback(base + i)
			if taken[addr] || !free(addr) {
				return nil, ashlar.E("dev", ashlar.Exist, addr, fmt.Errorf("the port is in use; choose another --base-port, or none"))
			}
			out = append(out, addr)
		}
		return out, nil
	}
	for range portTries {
		if len(out) == n {
			return out, nil
		}
		addr := loopback(portLow + rand.IntN(portHigh-portLow))
		if taken[addr] || !free(addr) {
			continue
		}
		taken[addr] = true
		out = append(out, addr)
	}
	return nil, ashlar.E("dev", ashlar.Busy, "", fmt.Errorf("no %d free ports between %d and %d; give --base-port", n, portLow, portHigh))
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func free(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	return true
}
