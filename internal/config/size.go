package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads a number of bytes as people write it: "4096", "64KiB",
// "1 GiB", "10GB", "1.5TiB". Units are those of IEC (KiB, MiB, GiB, TiB, or
// K, M, G, T) and of SI (kB, MB, GB, TB).
func ParseSize(s string) (uint64, error) {
	num := strings.TrimSpace(s)
	i := strings.IndexFunc(num, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	unit := ""
	if i >= 0 {
		num, unit = num[:i], strings.TrimSpace(num[i:])
	}
	mult, ok := units[strings.ToLower(unit)]
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || !ok || f < 0 {
		return 0, fmt.Errorf("%q is not a size; write bytes or a number with a unit, such as 64MiB", s)
	}
	if f*mult >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	if whole, err := strconv.ParseUint(num, 10, 64); err == nil {
		return whole * uint64(mult), nil
	}
	return uint64(f * mult), nil
}

var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
	"p": 1 << 50, "pib": 1 << 50, "pb": 1e15,
}

// FormatSize writes a number of bytes for people, in IEC units.
func FormatSize(n uint64) string {
	const names = "KMGTPE"
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(names)-1 {
		f, i = f/1024, i+1
	}
	prec := 1
	if f >= 100 || f == math.Trunc(f) {
		prec = 0
	}
	return strconv.FormatFloat(f, 'f', prec, 64) + " " + names[i:i+1] + "iB"
}
