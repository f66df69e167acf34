package file

import (
	"context"
)

// term is the time of one session. What was begun under a lease is only done
// while it lasts: under the next session it would be a late write (I-7).
type term struct {
	ctx context.Context // ends with the session, before there is another
	end context.CancelFunc
}

// nextTerm ends the present term.
func (fs *FS) nextTerm() {
	t := new(term)
	t.ctx, t.end = context.WithCancel(fs.base)
	if old := fs.term.Swap(t); old != nil {
		old.end()
	}
}

// useIn is use for what changes data, and tells in which term that may be done.
func (fs *FS) useIn(ctx context.Context, i *inode, a demand) (t *term, end func(), err error) {
	for {
		t = fs.term.Load() // before the session's lease is looked at
		end, err = fs.use(ctx, i, a)
		if err != nil || fs.term.Load() == t {
			return t, end, err
		}
		end()
	}
}

// within does what changes data in the object at once, until the term is over.
func (t *term) within(ctx context.Context, f func(context.Context) error) error {
	if t.ctx.Err() != nil {
		return errSessionLost
	}
	in, cancel := context.WithCancel(t.ctx)
	if d, ok := ctx.Deadline(); ok {
		in, cancel = context.WithDeadline(t.ctx, d)
	}
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	err := f(in)
	if err != nil && t.ctx.Err() != nil {
		return errSessionLost
	}
	return err
}
