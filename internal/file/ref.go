package file

import "github.com/ashlarfs/ashlar/internal/object"

// Ref names the data of a file to the object layer. One that is in use is not
// modified.
type Ref = object.Ref
