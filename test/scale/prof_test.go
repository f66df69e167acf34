package main
import ("testing";"time")
func BenchmarkFill(b *testing.B) {
	store, err := openStore(b.TempDir())
	if err != nil { b.Fatal(err) }
	l, err := newLeader(store)
	if err != nil { b.Fatal(err) }
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := grow(l, b.N, func(time.Duration){}); err != nil { b.Fatal(err) }
}
