package client

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Messages of administration, re-exported so that programs outside this module
// can name them.
type (
	// Status is the state of a cluster as its leader sees it.
	Status = wire.Status
	// VolumeStatus is one volume in a Status.
	VolumeStatus = wire.VolumeStatus
	// SetPool creates or changes a pool.
	SetPool = wire.SetPool
	// SetVolume creates or changes a volume.
	SetVolume = wire.SetVolume
	// SetDisk drains, relabels or removes a disk.
	SetDisk = wire.SetDisk
	// SetNode drains or removes a node.
	SetNode = wire.SetNode
)

// do runs an operation of administration.
func (c *Client) do(ctx context.Context, body, reply wire.Message) error {
	if reply == nil {
		reply = &wire.Empty{}
	}
	return c.meta.Do(ctx, ashlar.Cred{Checked: true}, body, reply)
}

// Status asks for the state of the cluster.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var r wire.StatusReply
	if err := c.do(ctx, &wire.GetStatus{}, &r); err != nil {
		return nil, err
	}
	return r.Get()
}

// Volumes lists the volumes.
func (c *Client) Volumes(ctx context.Context) ([]VolumeStatus, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	return s.Volumes, nil
}

// SetPool creates a pool, or changes one with m.Update.
func (c *Client) SetPool(ctx context.Context, m *SetPool) error { return c.do(ctx, m, nil) }

// DeletePool removes a pool that no volume uses.
func (c *Client) DeletePool(ctx context.Context, name string) error {
	return c.do(ctx, &wire.DeletePool{Name: name}, nil)
}

// SetVolume creates a volume, or changes one with m.Update.
func (c *Client) SetVolume(ctx context.Context, m *SetVolume) error {
	return c.do(ctx, m, &wire.VolumeReply{})
}

// DeleteVolume removes an empty volume, or with force any.
func (c *Client) DeleteVolume(ctx context.Context, name string, force bool) error {
	return c.do(ctx, &wire.DeleteVolume{Name: name, Force: force}, nil)
}

// SetDisk changes a disk.
func (c *Client) SetDisk(ctx context.Context, m *SetDisk) error { return c.do(ctx, m, nil) }

// SetNode changes a node.
func (c *Client) SetNode(ctx context.Context, m *SetNode) error { return c.do(ctx, m, nil) }

// AddMaster adds a master to the consensus group, a learner for good with
// learner.
func (c *Client) AddMaster(ctx context.Context, name, addr string, learner bool) error {
	return c.do(ctx, &wire.AddMaster{Name: name, Addr: addr, Learner: learner}, nil)
}

// RemoveMaster takes a master out of the consensus group.
func (c *Client) RemoveMaster(ctx context.Context, name string) error {
	return c.do(ctx, &wire.RemoveMaster{Name: name}, nil)
}

// TransferLeader hands leadership to the named master, or with "" to the most
// caught-up one.
func (c *Client) TransferLeader(ctx context.Context, name string) error {
	return c.do(ctx, &wire.TransferLeader{Name: name}, nil)
}

// Groups returns placement groups, all of them without ids.
func (c *Client) Groups(ctx context.Context, ids ...ashlar.PGID) ([]ashlar.Group, error) {
	var r wire.GroupsReply
	err := c.do(ctx, &wire.GetGroups{Groups: ids}, &r)
	return r.Groups, err
}
