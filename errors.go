package ashlar

import (
	"errors"
	"strconv"
)

// Kind says what went wrong. Kinds cross the wire as numbers: do not reorder
// them or remove any.
type Kind uint16

// The kinds of error.
const (
	Other           Kind = iota // unclassified
	Invalid                     // an argument is malformed (EINVAL)
	NotExist                    // no such thing (ENOENT)
	Exist                       // it is there already (EEXIST)
	NotDir                      // not a directory (ENOTDIR)
	IsDir                       // is a directory (EISDIR)
	NotEmpty                    // directory not empty (ENOTEMPTY)
	Permission                  // not allowed by mode or ownership (EACCES)
	NotOwner                    // only the owner or root may (EPERM)
	NameTooLong                 // name or path too long (ENAMETOOLONG)
	TooManyLinks                // link count at its limit (EMLINK)
	NoSpace                     // no room for new data (ENOSPC)
	Quota                       // quota reached (EDQUOT)
	TooBig                      // beyond a size limit (EFBIG, E2BIG)
	NoAttr                      // no such extended attribute (ENODATA)
	Range                       // result does not fit the buffer (ERANGE)
	Stale                       // the inode is gone or of another life (ESTALE)
	CrossVolume                 // the two are in different volumes (EXDEV)
	Loop                        // would make a directory its own ancestor (EINVAL)
	Busy                        // in use (EBUSY)
	Unsupported                 // not supported (EOPNOTSUPP)
	IO                          // a disk failed or data is damaged (EIO)
	NotLeader                   // ask another master; retried by clients
	NotReady                    // not yet able to serve; retried by clients
	WrongEpoch                  // placement group is of another epoch (I-4); retried
	WrongGeneration             // object is of another generation (I-10)
	NoLease                     // the answerer's lease is over (I-6); retried
	NoSession                   // session unknown, lost or fenced (I-7)
	OutcomeUnknown              // whether a retried request took effect cannot be told any more
	Overloaded                  // a queue is full; retried after a pause
	Unreachable                 // no connection to the server; retried
	Timeout                     // not answered in time
	Auth                        // handshake or ticket refused
	Version                     // protocol, format or feature not understood
	WrongCluster                // belongs to another cluster or history
	Corrupt                     // checksum mismatch or malformed bytes
	Fenced                      // this identity was replaced by a newer incarnation
	Canceled                    // the caller gave up
	TooManySymlinks             // too many levels of symbolic links (ELOOP)
	ReadOnly                    // read-only (EROFS)
	Deadlock                    // waiting for the lock would never end (EDEADLK)
	NoLocks                     // a limit on locks is reached (ENOLCK)
	kindEnd
)

var kindText = [...]string{
	Other: "error", Invalid: "invalid argument", NotExist: "does not exist", Exist: "already exists",
	NotDir: "not a directory", IsDir: "is a directory", NotEmpty: "directory not empty",
	Permission: "permission denied", NotOwner: "operation not permitted", NameTooLong: "name too long",
	TooManyLinks: "too many links", NoSpace: "no space left", Quota: "quota exceeded", TooBig: "too large",
	NoAttr: "no such attribute", Range: "result too large", Stale: "stale handle",
	CrossVolume: "crosses volumes", Loop: "would make a loop", Busy: "busy", Unsupported: "not supported",
	IO: "input/output error", NotLeader: "not the leader", NotReady: "not ready",
	WrongEpoch: "wrong epoch", WrongGeneration: "wrong generation", NoLease: "lease is over",
	NoSession: "session is gone", OutcomeUnknown: "outcome unknown", Overloaded: "overloaded",
	Unreachable: "unreachable", Timeout: "timed out", Auth: "authentication failed",
	Version: "version not supported", WrongCluster: "another cluster", Corrupt: "corrupt",
	Fenced: "replaced by a newer incarnation", Canceled: "canceled", TooManySymlinks: "too many symbolic links",
	ReadOnly: "read-only", Deadlock: "deadlock", NoLocks: "no locks available",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindText) && kindText[k] != "" {
		return kindText[k]
	}
	return "error kind " + strconv.Itoa(int(k))
}

// Error makes a Kind usable as the target of errors.Is:
// errors.Is(err, ashlar.NotExist).
func (k Kind) Error() string { return k.String() }

// Error is an error with a kind. Op says what was tried ("write", "lookup"),
// Subject on what ("pg 7", "/etc"), Err why; each may be empty.
type Error struct {
	Op      string
	Kind    Kind
	Subject string
	Err     error
}

// E makes an *Error. detail may be nil.
func E(op string, kind Kind, subject string, detail error) *Error {
	return &Error{Op: op, Kind: kind, Subject: subject, Err: detail}
}

// Error formats as "op subject: kind: detail".
func (e *Error) Error() string {
	s := e.Op
	if e.Subject != "" {
		if s != "" {
			s += " "
		}
		s += e.Subject
	}
	if s != "" {
		s += ": "
	}
	s += e.Kind.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the detail.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns the kind of the first *Error or Kind in err's chain, Other
// if there is none, and Other for nil.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Other
}

// Retryable tells whether a client should try a request again, against
// another server or later, rather than report the error.
func (k Kind) Retryable() bool {
	switch k {
	case NotLeader, NotReady, WrongEpoch, NoLease, Overloaded, Unreachable, Timeout:
		return true
	}
	return false
}
