//go:build linux

package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrUnknownOutcome says that the kernel's answer to a batch was lost: it may have been applied. The caller has
// to read what is there.
var ErrUnknownOutcome = errors.New("the kernel's answer was lost, so the batch may or may not have been applied")

// ErrOtherGeneration is what an Error unwraps to where Batch.Expect does not hold.
const ErrOtherGeneration = unix.ERESTART

// Error is the kernel's refusal of a batch. Nothing of the batch was applied. It unwraps to the error number.
type Error struct {
	Errno   unix.Errno
	Index   int    // of the first message that failed, -1 for the batch as a whole
	Message string // what that message was to do: "add elements to minato svc"
	Reason  string // the kernel's own words, where it has any
	Others  int    // how many more messages failed
}

func (e *Error) Error() string {
	s := fmt.Sprintf("nf_tables: %s: %s", e.Message, e.Errno)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Others > 0 {
		s += fmt.Sprintf(" (and %d more)", e.Others)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Errno }

// failures goes through the answers in b, adds up errors, and reports whether the last message was acknowledged.
func failures(b []byte, batch []byte, msgs []int, first *Error) (*Error, bool) {
	acked := false
	for len(b) >= 20 {
		n := int(binary.NativeEndian.Uint32(b))
		if n < 20 || n > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			seq := int(binary.NativeEndian.Uint32(b[8:]))
			code := unix.Errno(-int32(binary.NativeEndian.Uint32(b[16:])))
			switch {
			case code == 0:
				acked = acked || seq == len(msgs)
			case first == nil:
				first = refusal(b[:n], seq, code, batch, msgs)
			default:
				first.Others++
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return first, acked
}

// refusal decodes one error answer (NETLINK_EXT_ACK): after the header come the error number, the header of the
// message that failed, and attributes.
func refusal(m []byte, seq int, code unix.Errno, batch []byte, msgs []int) *Error {
	e := &Error{Errno: code, Index: seq - 1, Message: "commit"}
	if i := seq - 1; i >= 0 && i < len(msgs) {
		e.Message = describe(batch[msgs[i]:])
	}
	if binary.NativeEndian.Uint16(m[6:])&unix.NLM_F_ACK_TLVS != 0 && len(m) > 36 {
		e.Reason = getStr(Attr(m[36:], unix.NLMSGERR_ATTR_MSG))
	}
	return e
}

var operations = map[uint16]string{
	unix.NFT_MSG_NEWTABLE:   "add table",
	unix.NFT_MSG_DELTABLE:   "delete table",
	unix.NFT_MSG_NEWCHAIN:   "add chain",
	unix.NFT_MSG_DELCHAIN:   "delete chain",
	unix.NFT_MSG_NEWRULE:    "add rule to",
	unix.NFT_MSG_DELRULE:    "delete rule of",
	unix.NFT_MSG_NEWSET:     "add set",
	unix.NFT_MSG_NEWSETELEM: "add elements to",
	unix.NFT_MSG_DELSETELEM: "delete elements of",
}

// describe says what the message at the head of b does. Attributes 1 and 2 (3 for a chain) are the names of all kinds.
func describe(b []byte) string {
	op := binary.NativeEndian.Uint16(b[4:]) & 0xff
	body := b[20:binary.NativeEndian.Uint32(b)]
	s := fmt.Sprintf("%s %s %s", operations[op], Family(b[16]), getStr(Attr(body, 1)))
	object := uint16(2)
	switch op {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		return s
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		object = unix.NFTA_CHAIN_NAME
	}
	return s + " " + getStr(Attr(body, object))
}
