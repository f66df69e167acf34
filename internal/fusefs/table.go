package fusefs

import "sync"

// table numbers open files or directories for the kernel.
type table[T any] struct {
	mu   sync.RWMutex
	m    map[uint64]T
	next uint64
}

func (t *table[T]) add(v T) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[uint64]T{}
	}
	t.next++
	t.m[t.next] = v
	return t.next
}

func (t *table[T]) get(n uint64) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.m[n]
	return v, ok
}

func (t *table[T]) remove(n uint64) (T, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.m[n]
	delete(t.m, n)
	return v, ok
}
