package consensus

import "sync"

// queue hands items from many goroutines to one. It has no bound of its own:
// each producer's is named where it puts.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{} // holds one token while there may be items
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

func (q *queue[T]) put(items ...T) {
	if len(items) == 0 {
		return
	}
	q.putQuietly(items...)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// putQuietly is put for what can wait until something else, or the next tick,
// makes the other side look.
func (q *queue[T]) putQuietly(items ...T) {
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
}

// take returns everything queued and takes old, emptied, for the next.
func (q *queue[T]) take(old []T) []T {
	clear(old)
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = old[:0]
	return items
}
