package file

import (
	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Ref names the data of a file to the object layer.
type Ref struct {
	wire.Object
	Owner ashlar.Inode
	Hint  string
}
