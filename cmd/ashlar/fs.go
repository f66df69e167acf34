package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/client"
	"github.com/ashlarfs/ashlar/internal/config"
)

func newFSCmd(g *global) *cobra.Command {
	return newNoun("fs", "work with files without a mount",
		`Works on files of a volume without a mount. A path in a volume is written
VOLUME:/path, or :/path for the volume that the client file names.`,
		`  ashlar fs ls main:/
  ashlar fs cp -r ./src main:/src`,
		newFSLsCmd(g), newFSCpCmd(g), newFSCatCmd(g), newFSStatCmd(g), newFSRmCmd(g), newFSInfoCmd(g))
}

// remote is a path in a volume.
type remote struct {
	volume string
	name   string // as package client wants it
	text   string // as the user wrote it
}

// parseRemote reads VOLUME:/path; ok is false for a local path.
func parseRemote(s string) (r remote, ok bool) {
	vol, p, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(vol, "/") {
		return remote{}, false
	}
	return remote{volume: vol, name: client.Clean(p), text: s}, true
}

// needRemote is parseRemote for arguments that must be in a volume.
func needRemote(s string) (remote, error) {
	r, ok := parseRemote(s)
	if !ok {
		return r, usagef("%q is not a path in a volume; write VOLUME:/path", s)
	}
	return r, nil
}

// files opens volumes for one command.
type files struct {
	c       *client.Client
	conf    *config.Client
	volumes map[string]*client.Volume
}

// fileTimeout is how long the cluster may take to be found.
const fileTimeout = 15 * time.Second

// files runs fn with a session. The session ends when fn is done, and what is
// buffered is written.
func (g *global) files(ctx context.Context, fn func(*files) error) (err error) {
	conf, err := config.FindClient(g.cluster, os.LookupEnv)
	if err != nil {
		return err
	}
	dctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	c, err := client.DialConfig(dctx, client.Config{Cluster: conf.Cluster, Masters: conf.Masters, Secret: conf.Secret, Name: commandName()})
	if err != nil {
		return err
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fileTimeout)
		defer cancel()
		if cerr := c.Close(cctx); err == nil {
			err = cerr
		}
	}()
	return fn(&files{c: c, conf: conf, volumes: map[string]*client.Volume{}})
}

// volume opens the volume of a path.
func (f *files) volume(ctx context.Context, r remote) (*client.Volume, error) {
	name := r.volume
	if name == "" {
		name = f.conf.Volume
	}
	if name == "" {
		return nil, usagef("%q names no volume, and neither does the client file", r.text)
	}
	if v := f.volumes[name]; v != nil {
		return v, nil
	}
	v, err := f.c.Volume(ctx, name)
	if err != nil {
		return nil, hintf(err, "`ashlar volume list` shows the volumes there are")
	}
	f.volumes[name] = v.WithContext(ctx)
	return f.volumes[name], nil
}

// at runs fn on one path in a volume.
func (g *global) at(ctx context.Context, arg string, fn func(*client.Volume, remote) error) error {
	r, err := needRemote(arg)
	if err != nil {
		return err
	}
	return g.files(ctx, func(f *files) error {
		v, err := f.volume(ctx, r)
		if err != nil {
			return err
		}
		return fn(v, r)
	})
}

// fileEntry is what ls and stat print of a file with --json.
type fileEntry struct {
	Name   string       `json:"name"`
	Mode   string       `json:"mode"`
	Size   uint64       `json:"size"`
	UID    uint32       `json:"uid"`
	GID    uint32       `json:"gid"`
	Mtime  time.Time    `json:"mtime"`
	Inode  ashlar.Inode `json:"inode"`
	Nlink  uint32       `json:"nlink"`
	Target string       `json:"target,omitempty"`
}

func newEntry(v *client.Volume, name string, fi fs.FileInfo) fileEntry {
	e := fileEntry{Name: path.Base(name), Mode: fi.Mode().String(), Size: uint64(fi.Size()), Mtime: fi.ModTime()}
	if a, ok := fi.Sys().(*ashlar.Attr); ok {
		e.UID, e.GID, e.Inode, e.Nlink = a.UID, a.GID, a.Inode, a.Nlink
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		if t, err := v.ReadLink(name); err == nil { // gone meanwhile: shown without
			e.Target = t
		}
	}
	return e
}

// words is the entry as ls prints it.
func (e fileEntry) words() table.Row {
	name := e.Name
	if e.Target != "" {
		name += " -> " + e.Target
	}
	return table.Row{e.Mode, e.UID, e.GID, e.Size, e.Mtime.Format(time.DateTime), name}
}

func newFSLsCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "ls VOLUME:/PATH", Short: "list a directory",
		Long: "Lists a directory, or shows a file.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar fs ls main:/
  ashlar fs ls main:/src -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.at(c.Context(), a[0], func(v *client.Volume, r remote) error { return runLs(g, v, r.name) })
		},
	}
}

func runLs(g *global, v *client.Volume, name string) error {
	fi, err := v.Stat(name)
	if err != nil {
		return err
	}
	list := []fileEntry{}
	if fi.IsDir() {
		ds, err := v.ReadDir(name)
		if err != nil {
			return err
		}
		for _, d := range ds {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			list = append(list, newEntry(v, path.Join(name, d.Name()), fi))
		}
	} else {
		list = append(list, newEntry(v, name, fi))
	}
	if g.json {
		return printJSON(g.Out, list)
	}
	var rows []table.Row
	for _, e := range list {
		rows = append(rows, e.words())
	}
	printTable(g.Out, table.Row{"mode", "uid", "gid", "size", "modified", "name"}, rows)
	return nil
}

func newFSStatCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "stat VOLUME:/PATH", Short: "show the attributes of a file",
		Long: "Shows the attributes of a name; a symbolic link is not followed.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar fs stat main:/src/main.go
  ashlar fs stat main:/src -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.at(c.Context(), a[0], func(v *client.Volume, r remote) error { return runStat(g, v, r) })
		},
	}
}

func runStat(g *global, v *client.Volume, r remote) error {
	fi, err := v.Lstat(r.name)
	if err != nil {
		return err
	}
	e := newEntry(v, r.name, fi)
	if g.json {
		return printJSON(g.Out, e)
	}
	g.sayf("%s\n  inode %d, %d links\n  mode %s, owner %d:%d\n  size %d\n  modified %s",
		r.text, e.Inode, e.Nlink, e.Mode, e.UID, e.GID, e.Size, e.Mtime.Format(time.RFC3339Nano))
	if e.Target != "" {
		g.sayf("  leads to %s", e.Target)
	}
	return nil
}

func newFSCatCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "cat VOLUME:/PATH...", Short: "print files",
		Long: "Prints files to standard output.\n\n" + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar fs cat main:/etc/motd
  ashlar fs cat main:/a main:/b > both`,
		Args: args(1, -1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.files(c.Context(), func(f *files) error {
				for _, arg := range a {
					if err := runCat(c.Context(), g, f, arg); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func runCat(ctx context.Context, g *global, f *files, arg string) error {
	r, err := needRemote(arg)
	if err != nil {
		return err
	}
	v, err := f.volume(ctx, r)
	if err != nil {
		return err
	}
	in, err := v.Open(r.name)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = copyData(g.Out, in, &bar{})
	return err
}

type rmOptions struct {
	recursive bool
	force     bool
}

func newFSRmCmd(g *global) *cobra.Command {
	var o rmOptions
	c := &cobra.Command{
		Use: "rm VOLUME:/PATH...", Short: "remove files",
		Long: `Removes files and empty directories, with -r whole trees. Space comes back in
the background.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar fs rm main:/old.txt
  ashlar fs rm -r main:/build main:/tmp`,
		Args: args(1, -1),
		RunE: func(c *cobra.Command, a []string) error {
			for _, arg := range a {
				err := g.at(c.Context(), arg, func(v *client.Volume, r remote) error { return o.remove(v, r) })
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "directories with all that is in them")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "a name that is not there is no error")
	return c
}

func (o rmOptions) remove(v *client.Volume, r remote) error {
	_, err := v.Lstat(r.name)
	switch {
	case err != nil && o.force && ashlar.KindOf(err) == ashlar.NotExist:
		return nil
	case err != nil:
		return err
	case o.recursive:
		return v.RemoveAll(r.name)
	}
	err = v.Remove(r.name)
	if ashlar.KindOf(err) == ashlar.NotEmpty {
		err = hintf(err, "`ashlar fs rm -r %s` removes it with all that is in it", r.text)
	}
	return err
}

func newFSInfoCmd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "info VOLUME:/PATH", Short: "show where a file's data is",
		Long: `Shows the layout of a file, its chunks, and for each the placement group and
the disks that have a copy; the first is the primary.

` + exits(exitOK, exitFailed, exitUsage, exitNotFound, exitUnavailable),
		Example: `  ashlar fs info main:/video.mp4
  ashlar fs info main:/video.mp4 -json`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			return g.at(c.Context(), a[0], func(v *client.Volume, r remote) error { return runFSInfo(g, v, r) })
		},
	}
}

// chunkInfo is a chunk with its copies.
type chunkInfo struct {
	Index  uint32       `json:"index"`
	Bytes  uint32       `json:"bytes"`
	Group  ashlar.PGID  `json:"group"`
	Epoch  ashlar.Epoch `json:"epoch"`
	Copies []copyInfo   `json:"copies"`
}

type copyInfo struct {
	Disk    ashlar.DiskID `json:"disk"`
	Addr    string        `json:"addr"`
	State   string        `json:"state"`
	Primary bool          `json:"primary,omitempty"`
}

func runFSInfo(g *global, v *client.Volume, r remote) error {
	info, err := v.Info(r.name)
	if err != nil {
		return err
	}
	groups := map[ashlar.PGID]*ashlar.Group{}
	for i := range info.Groups {
		groups[info.Groups[i].ID] = &info.Groups[i]
	}
	chunks := []chunkInfo{}
	for _, c := range info.Chunks {
		ci := chunkInfo{Index: c.Index, Bytes: c.Len, Group: c.Group}
		if gr := groups[c.Group]; gr != nil {
			ci.Epoch = gr.Epoch
			for i, m := range gr.Members {
				ci.Copies = append(ci.Copies, copyInfo{m.Disk, m.Addr, m.State.String(), i == gr.Primary()})
			}
		}
		chunks = append(chunks, ci)
	}
	if g.json {
		return printJSON(g.Out, map[string]any{
			"path": r.text, "inode": info.Attr.Inode, "size": info.Attr.Size, "layer": info.Layer, "generation": info.Gen,
			"chunk_size": info.Layout.ChunkSize, "segments": info.Layout.Segments, "chunks": chunks,
		})
	}
	g.sayf("%s: inode %d, %s, layer %d generation %d, chunks of %s", r.text, info.Attr.Inode, size(info.Attr.Size), info.Layer, info.Gen, size(uint64(info.Layout.ChunkSize)))
	for i, s := range info.Layout.Segments {
		g.sayf("  segment %d: from chunk %d, stripe unit %s, groups %v", i, s.First, size(uint64(s.StripeUnit)), s.Groups)
	}
	var rows []table.Row
	for _, c := range chunks {
		var copies []string
		for _, m := range c.Copies {
			s := fmt.Sprintf("disk %d at %s", m.Disk, orNone(m.Addr))
			if m.State != ashlar.InSync.String() {
				s += " (" + m.State + ")"
			}
			copies = append(copies, s)
		}
		rows = append(rows, table.Row{c.Index, size(uint64(c.Bytes)), c.Group, c.Epoch, strings.Join(copies, ", ")})
	}
	printTable(g.Out, table.Row{"chunk", "bytes", "group", "epoch", "copies"}, rows)
	return nil
}
