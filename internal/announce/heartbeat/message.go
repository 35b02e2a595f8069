package heartbeat

import "minato/internal/model"

// A message is these four bytes, one of version, one of the sender's state, and its name.
const (
	magic      = "mnto"
	version    = 1
	header     = len(magic) + 2
	maxMessage = header + 63 // node names are labels
)

func encode(name string, state model.PeerState) []byte {
	return append(append([]byte(magic), version, byte(state)), name...)
}

// decode reads a message; ok is false for anything else.
func decode(b []byte) (name string, state model.PeerState, ok bool) {
	if len(b) <= header || len(b) > maxMessage || string(b[:len(magic)]) != magic || b[len(magic)] != version {
		return "", 0, false
	}
	state = model.PeerState(b[header-1])
	return string(b[header:]), state, state <= model.PeerCutOff
}
