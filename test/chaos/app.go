package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/ashlarfs/ashlar/test/history"
)

// appVerb, as the first argument, makes this binary applications on a mount.
const appVerb = "app"

// What applications do.
const (
	appFiles = 2 // each with an application of its own
	// backEvery is how often an application tries a mount that is gone.
	backEvery = 100 * time.Millisecond
	// namesDir is where names change, appNames are those.
	namesDir = "names"
	appNames = 3
)

// app is one application on a mounted volume: it does one thing after the
// other, with system calls, and nobody else has its files. So what it is told
// can be judged although a mount buffers: a write counts as asked for until the
// file was synced or closed.
type app struct {
	dir    string // of the round, below the mount
	key    string // in histories: before the name of a file
	notes  *notes
	errs   *json.Encoder
	errsMu *sync.Mutex
	id     int
	file   string // its own
	rng    *rand.Rand
	count  uint64
}

// appError is an error that an application saw: what it was doing from when
// until when. A file of them has one a line.
type appError struct {
	Op     string        `json:"op"`
	Error  string        `json:"error"`
	Errno  syscall.Errno `json:"errno"`
	Call   int64         `json:"call"`
	Return int64         `json:"return"`
}

// appMain works until its input ends, or it is killed.
func appMain(args []string) int {
	var a app
	var historyFile, errorsFile string
	var proc int
	var seed uint64
	f := flag.NewFlagSet(appVerb, flag.ExitOnError)
	f.StringVar(&a.dir, "dir", "", "directory to work in, below a mount")
	f.StringVar(&a.key, "name", "", "name of the mount")
	f.StringVar(&historyFile, "history", "", "where operations are noted")
	f.StringVar(&errorsFile, "errors", "", "where errors are noted")
	f.IntVar(&proc, "proc", 0, "number of the process, different for all of a round")
	f.Uint64Var(&seed, "seed", 0, "seed")
	_ = f.Parse(args) // ends the process
	if err := runApps(a, historyFile, errorsFile, proc, seed); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		return 1
	}
	return 0
}

func runApps(common app, historyFile, errorsFile string, proc int, seed uint64) (err error) {
	var out [2]*os.File
	for i, name := range []string{historyFile, errorsFile} {
		if out[i], err = os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			return err
		}
		defer out[i].Close()
	}
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the driver closes it
		close(stop)
	}()
	common.notes, common.errs, common.errsMu = &notes{out: out[0]}, json.NewEncoder(out[1]), &sync.Mutex{}
	var done sync.WaitGroup
	for i := range appFiles + 1 {
		a := common
		a.id, a.file = workersMax*proc+i, appFile(i)
		a.rng = rand.New(rand.NewPCG(seed, uint64(a.id)))
		step := a.step
		if i == appFiles {
			step = a.changeNames
		}
		done.Go(func() {
			a.until(stop, step)
			if i < appFiles {
				a.readAll()
			}
		})
	}
	done.Wait()
	return errors.Join(common.notes.errs...)
}

// appFile is the name of an application's file.
func appFile(i int) string { return fmt.Sprintf("file%d", i) }

// until works until stop is closed, and ends what it is at.
func (a *app) until(stop <-chan struct{}, step func() error) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		pause := time.Duration(a.rng.Int64N(int64(thinkMax)))
		if step() != nil {
			pause = backEvery
		}
		t.Reset(pause)
	}
}

// tell notes an error that the application saw.
func (a *app) tell(op string, call int64, err error) {
	e := appError{Op: op, Error: err.Error(), Call: call, Return: now()}
	_ = errors.As(err, &e.Errno) // otherwise there is none
	a.errsMu.Lock()
	defer a.errsMu.Unlock()
	if err := a.errs.Encode(e); err != nil {
		a.notes.wrong(err)
	}
}

func (a *app) value() uint64 {
	a.count++
	return uint64(a.id)<<20 | a.count
}

func (a *app) path(name string) string { return filepath.Join(a.dir, name) }

func (a *app) block(i int) string { return fmt.Sprintf("%s/%s/%d", a.key, a.file, i) }

// step writes a block of the application's file, replaces the file, or reads.
func (a *app) step() error {
	what := a.rng.IntN(6)
	for i := range blocksEach {
		if a.notes.full(a.block(i)) {
			what = 0
		}
	}
	switch block := a.rng.IntN(blocksEach); what {
	case 0, 1, 2:
		return a.read(block)
	case 3, 4:
		return a.write(block)
	default:
		return a.replace()
	}
}

// readAll reads every block, once faults are over.
func (a *app) readAll() {
	for i := range blocksEach {
		_ = a.read(i) // noted
	}
}

// read reads a block: through the kernel's cache, or past it.
func (a *app) read(block int) error {
	o := history.Op{Client: a.id, Kind: history.BlockRead, Key: a.block(block), Call: now()}
	flags, b := os.O_RDONLY, make([]byte, history.BlockSize)
	if a.rng.IntN(2) == 0 {
		flags |= syscall.O_DIRECT
		b = aligned()
	}
	err := a.open(flags, func(f *os.File) error {
		n, err := f.ReadAt(b, int64(block)*history.BlockSize)
		if errors.Is(err, io.EOF) && n == 0 {
			return nil // nothing was written there yet
		}
		return err
	})
	if err != nil {
		a.tell("read "+o.Key, o.Call, err)
		return err
	}
	if o.Value, err = history.Value(b); err != nil {
		a.notes.wrong(fmt.Errorf("%v: %w", &o, err))
	}
	o.Return = now()
	a.notes.add(&o)
	return nil
}

// aligned is a block that reads past the kernel's cache take.
func aligned() []byte {
	b := make([]byte, 2*history.BlockSize)
	at := -uintptr(unsafe.Pointer(&b[0])) % history.BlockSize
	return b[at : at+history.BlockSize : at+history.BlockSize]
}

func (a *app) open(flags int, do func(*os.File) error) error {
	f, err := os.OpenFile(a.path(a.file), flags, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// change opens a file, notes writes, does them, closes the file, and notes how
// the writes ended. What cannot be opened is not written.
func (a *app) change(name string, flags int, ops []history.Op, do func(*os.File) error) error {
	call := now()
	f, err := os.OpenFile(a.path(name), flags, 0o666)
	if err != nil {
		a.tell("open "+a.key+"/"+name, call, err)
		return err
	}
	for i := range ops {
		ops[i].Client, ops[i].Call, ops[i].Return = a.id, now(), history.Never
		a.notes.add(&ops[i])
	}
	if err = errors.Join(do(f), f.Close()); err == nil && name != a.file {
		err = os.Rename(a.path(name), a.path(a.file))
	}
	if err != nil {
		a.tell(fmt.Sprintf("write %s/%s", a.key, name), call, err)
	}
	for i := range ops {
		if err != nil {
			a.notes.lost(&ops[i])
			continue
		}
		ops[i].Return = now()
		a.notes.add(&ops[i])
	}
	return err
}

// write writes a block in place. Half of them are synced, all are closed:
// either is a promise that outlives the mount.
func (a *app) write(block int) error {
	o := history.Op{Kind: history.BlockWrite, Key: a.block(block), Value: a.value()}
	b := make([]byte, history.BlockSize)
	history.Fill(b, o.Value)
	return a.change(a.file, os.O_WRONLY, []history.Op{o}, func(f *os.File) error {
		if _, err := f.WriteAt(b, int64(block)*history.BlockSize); err != nil || a.rng.IntN(2) == 0 {
			return err
		}
		return f.Sync()
	})
}

// replace writes a new file, syncs it and puts it in place of the old one, as
// editors do.
func (a *app) replace() error {
	var ops []history.Op
	var content []byte
	for i := range blocksEach {
		o := history.Op{Kind: history.BlockWrite, Key: a.block(i), Value: a.value()}
		b := make([]byte, history.BlockSize)
		history.Fill(b, o.Value)
		ops, content = append(ops, o), append(content, b...)
	}
	return a.change(a.file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, ops, func(f *os.File) error {
		_, err := f.Write(content)
		if err == nil {
			err = f.Sync()
		}
		return err
	})
}

// changeNames does one operation in the directory of names. A file is told by
// the user id that it was made with.
func (a *app) changeNames() error {
	name := func() string { return string(rune('a' + a.rng.IntN(appNames))) }
	o := history.Op{Client: a.id, Key: a.key + "/" + namesDir, Name: name(), Call: now(), Return: history.Never}
	dir, err := os.Open(a.path(namesDir))
	if err != nil { // even if there is none: where nothing is mounted nothing is
		a.tell("open "+o.Key, o.Call, err)
		return err
	}
	defer dir.Close()
	at := func(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name) }
	what := a.rng.IntN(6)
	if a.notes.full(o.Key) {
		what = 4 + a.rng.IntN(2)
	}
	var do func() error
	switch what {
	case 0, 1:
		o.Kind, o.Value = history.Create, a.value()
		do = func() error { return createAs(int(dir.Fd()), o.Name, int(o.Value)) }
	case 2:
		o.Kind = history.Unlink
		do = func() error { return syscall.Unlink(at(o.Name)) }
	case 3:
		o.Kind, o.To = history.Rename, name()
		do = func() error { return syscall.Rename(at(o.Name), at(o.To)) }
	case 4:
		o.Kind = history.Lookup
		do = func() error {
			var st syscall.Stat_t
			err := syscall.Lstat(at(o.Name), &st)
			o.Value, o.Links = uint64(st.Uid), uint32(st.Nlink)
			return err
		}
	default:
		o.Kind, o.Name, o.Names = history.List, "", []string{}
		do = func() error {
			list, err := os.ReadDir(at("."))
			for _, e := range list {
				o.Names = append(o.Names, e.Name())
			}
			slices.Sort(o.Names)
			return err
		}
	}
	if o.Kind.Changes() {
		a.notes.add(&o)
	}
	return a.changed(&o, do())
}

// changed notes how an operation on names ended.
func (a *app) changed(o *history.Op, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o.Errno = "noent"
	case errors.Is(err, fs.ErrExist):
		o.Errno = "exist"
	case err != nil:
		a.tell(string(o.Kind)+" in "+o.Key, o.Call, err)
		if o.Kind.Changes() {
			a.notes.lost(o)
		}
		return err
	}
	o.Return = now()
	a.notes.add(o)
	return nil
}

// createAs makes a file that was not there, as a user, who may not enter the
// directories above.
func createAs(dir int, name string, uid int) error {
	runtime.LockOSThread() // who asks is a matter of the thread
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(uid); err != nil {
		return err
	}
	fd, err := syscall.Openat(dir, name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY|syscall.O_CLOEXEC, 0o666)
	if err := syscall.Setfsuid(0); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}
