package server

import (
	"encoding/binary"
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outgoingMessages are the replies of one batch as sendmmsg takes them.
type outgoingMessages struct {
	msgs     [batch]mmsghdr
	vecs     [batch]unix.Iovec
	controls [batch]segmentControl
	alone    [1]mmsghdr // for one that is sent by itself
}

// segmentControl is a control message that says where the kernel cuts a message into datagrams.
type segmentControl struct {
	hdr  unix.Cmsghdr
	size [8]byte // the first two are the length of a datagram
}

// pack arranges the first n replies into messages. Those to one client become one, which the kernel takes through its
// layers once and cuts up at the end (UDP_SEGMENT): all datagrams but the last must have one length, and the last may
// be shorter. Clients ask for A and AAAA at once, and under load for more.
func (m *mmsg) pack(n int) []mmsghdr {
	o := &m.out
	count, vec, packed := 0, 0, [batch]bool{}
	for i := range n {
		if packed[i] {
			continue
		}
		first, size := vec, len(m.replies[i])
		o.set(&vec, m.replies[i])
		for j, full := i+1, false; j < n && !full; j++ {
			l, alone := len(m.replies[j]), vec == first+1
			if packed[j] || !m.sameClient(m.to[i], m.to[j]) || l > size && !alone {
				continue
			}
			packed[j], full = true, l != size
			o.set(&vec, m.replies[j])
			if l > size { // the longer one goes first
				o.vecs[first], o.vecs[first+1], size = o.vecs[first+1], o.vecs[first], l
			}
		}
		from := &m.in[m.to[i]].hdr
		o.message(count, o.vecs[first:vec], from, size)
		count++
	}
	return o.msgs[:count]
}

func (o *outgoingMessages) set(vec *int, b []byte) {
	o.vecs[*vec].Base = &b[0]
	o.vecs[*vec].SetLen(len(b))
	*vec++
}

// message makes the k-th message, to the sender of another, of datagrams of a size.
func (o *outgoingMessages) message(k int, datagrams []unix.Iovec, to *unix.Msghdr, size int) {
	h := &o.msgs[k].hdr
	*h = unix.Msghdr{Name: to.Name, Namelen: to.Namelen, Iov: &datagrams[0]}
	h.SetIovlen(len(datagrams))
	if len(datagrams) == 1 {
		return
	}
	c := &o.controls[k]
	c.hdr.Level, c.hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	c.hdr.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(c.size[:], uint16(size))
	h.Control = (*byte)(unsafe.Pointer(c))
	h.SetControllen(unix.CmsgSpace(2))
}

// sameClient reports whether two messages that were read have one sender.
func (m *mmsg) sameClient(i, j int) bool { return i == j || m.from[i] == m.from[j] }

// sendSingly sends the datagrams of a message that could not be sent, one by one: where its way is no good for cutting
// (a small MTU, say), they can still arrive. What fails now is left out. It fails with net.ErrClosed.
func (m *mmsg) sendSingly(whole *unix.Msghdr) error {
	vecs := unsafe.Slice(whole.Iov, whole.Iovlen)
	if len(vecs) == 1 {
		return nil
	}
	for i := range vecs {
		h := &m.out.alone[0].hdr
		*h = unix.Msghdr{Name: whole.Name, Namelen: whole.Namelen, Iov: &vecs[i]}
		h.SetIovlen(1)
		for {
			_, err := m.send(m.out.alone[:])
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	return nil
}
