package meta

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Cluster is the record of the cluster's identity.
type Cluster struct {
	ID      ashlar.ClusterID
	History ashlar.History
	Created int64
}

// Fields implements key.Record.
func (r *Cluster) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.Fixed(c, r.ID[:])
	wire.U32(c, &r.History)
	wire.I64(c, &r.Created)
}

// InitCluster writes the identity of a new cluster into an empty store; it
// does nothing if there is one already.
func InitCluster(tx Tx, c *Cluster) {
	if _, ok := tx.Get(key.Cluster()); !ok {
		key.Store(tx, key.Cluster(), c)
		SetTime(tx, c.Created)
	}
}

// LoadCluster returns the cluster's identity, nil from an empty store.
func LoadCluster(tx Tx) (*Cluster, error) {
	c := new(Cluster)
	if ok, err := key.Load(tx, key.Cluster(), c); err != nil || !ok {
		return nil, err
	}
	return c, nil
}

// Time returns the last operation time in the state. The leader's operation
// time is never below it.
func Time(tx Tx) (int64, error) {
	n, _, err := key.LoadNumber(tx, key.Time())
	return int64(n), err
}

// SetTime records the operation time of a batch.
func SetTime(tx Tx, now int64) { key.StoreNumber(tx, key.Time(), uint64(now)) }
