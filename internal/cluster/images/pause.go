package images

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// PauseImage is the reference of the built-in pause image. Its tag changes with its content, because containerd
// keeps what it pulled under the old one.
const PauseImage = "minato.local/pause:1"

// The pause program holds a pod's namespaces open. It blocks SIGINT, SIGTERM and SIGCHLD and then waits for them:
//
//	rt_sigprocmask(SIG_BLOCK, {INT TERM CHLD}, NULL, 8)
//	wait: switch rt_sigtimedwait({INT TERM CHLD}, NULL, NULL, 8) {
//	      case SIGCHLD: while wait4(-1, NULL, WNOHANG, NULL) > 0 {}    // it is PID 1 of a shared PID namespace
//	      case < 0:                                                     // interrupted
//	      default: exit_group(0) }
//	      goto wait
//
// Blocked signals reach even a PID 1, which no signal would kill by default. Two hundred bytes of machine code,
// so that no pod needs a compiler, a download or a megabyte. TestPause runs it.
var (
	pauseAMD64 = []byte{
		0x48, 0x83, 0xec, 0x10, // sub  rsp, 16
		0x48, 0xc7, 0x04, 0x24, 0x02, 0x40, 0x01, 0x00, // mov  qword [rsp], 1<<1 | 1<<14 | 1<<16
		0x31, 0xff, // xor  edi, edi
		0x48, 0x89, 0xe6, // mov  rsi, rsp
		0x31, 0xd2, // xor  edx, edx
		0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov  r10d, 8
		0xb8, 0x0e, 0x00, 0x00, 0x00, // mov  eax, 14         rt_sigprocmask
		0x0f, 0x05, // syscall
		0x48, 0x89, 0xe7, // wait: mov rdi, rsp
		0x31, 0xf6, // xor  esi, esi
		0x31, 0xd2, // xor  edx, edx
		0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov  r10d, 8
		0xb8, 0x80, 0x00, 0x00, 0x00, // mov  eax, 128        rt_sigtimedwait
		0x0f, 0x05, // syscall
		0x83, 0xf8, 0x11, // cmp  eax, 17         SIGCHLD
		0x74, 0x0d, // je   reap
		0x85, 0xc0, // test eax, eax
		0x78, 0xe3, // js   wait
		0x31, 0xff, // xor  edi, edi
		0xb8, 0xe7, 0x00, 0x00, 0x00, // mov  eax, 231        exit_group
		0x0f, 0x05, // syscall
		0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, // reap: mov rdi, -1
		0x31, 0xf6, // xor  esi, esi
		0xba, 0x01, 0x00, 0x00, 0x00, // mov  edx, 1          WNOHANG
		0x45, 0x31, 0xd2, // xor  r10d, r10d
		0xb8, 0x3d, 0x00, 0x00, 0x00, // mov  eax, 61         wait4
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x7f, 0xe4, // jg   reap
		0xeb, 0xbc, // jmp  wait
	}
	pauseARM64 = []uint32{
		0xd10043ff,             // sub  sp, sp, #16
		0xd2880040, 0xf2a00020, // mov  x0, #1<<1 | 1<<14 | 1<<16
		0xf90003e0, // str  x0, [sp]
		0xaa1f03e0, // mov  x0, xzr
		0x910003e1, // mov  x1, sp
		0xaa1f03e2, // mov  x2, xzr
		0xb27d03e3, // mov  x3, #8
		0xd28010e8, // mov  x8, #135        rt_sigprocmask
		0xd4000001, // svc  #0
		0x910003e0, // wait: mov x0, sp
		0xaa1f03e1, // mov  x1, xzr
		0xaa1f03e2, // mov  x2, xzr
		0xb27d03e3, // mov  x3, #8
		0xd2801128, // mov  x8, #137        rt_sigtimedwait
		0xd4000001, // svc  #0
		0x7100441f, // cmp  w0, #17         SIGCHLD
		0x540000a0, // b.eq reap
		0x37ffff00, // tbnz w0, #31, wait
		0xaa1f03e0, // mov  x0, xzr
		0xd2800bc8, // mov  x8, #94         exit_group
		0xd4000001, // svc  #0
		0x92800000, // reap: mov x0, #-1
		0xaa1f03e1, // mov  x1, xzr
		0xb24003e2, // mov  x2, #1          WNOHANG
		0xaa1f03e3, // mov  x3, xzr
		0xd2802088, // mov  x8, #260        wait4
		0xd4000001, // svc  #0
		0x7100001f, // cmp  w0, #0
		0x54ffff2c, // b.gt reap
		0x17ffffec, // b    wait
	}
)

// pauseProgram is the pause program of an architecture, as a static ELF file.
func pauseProgram(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		return staticELF(62, pauseAMD64), nil
	case "arm64":
		code, err := binary.Append(nil, binary.LittleEndian, pauseARM64)
		return staticELF(183, code), err
	}
	return nil, fmt.Errorf("no pause program for %s", arch)
}

// staticELF wraps position-independent code for an ELF machine in an executable with one segment.
func staticELF(machine uint16, code []byte) []byte {
	const base, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	f := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 64 bit, little endian, version 1
	f = le.AppendUint16(f, 2)                                            // executable
	f = le.AppendUint16(f, machine)
	f = le.AppendUint32(f, 1)
	f = le.AppendUint64(f, base+headers) // entry
	f = le.AppendUint64(f, 64)           // program headers
	f = le.AppendUint64(f, 0)            // no section headers
	f = le.AppendUint32(f, 0)
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} { // sizes and counts of headers
		f = le.AppendUint16(f, n)
	}
	size := uint64(headers + len(code))
	f = le.AppendUint32(f, 1) // PT_LOAD
	f = le.AppendUint32(f, 5) // readable, executable
	for _, n := range []uint64{0, base, base, size, size, 0x10000} {
		f = le.AppendUint64(f, n) // offset, addresses, sizes, alignment of the largest pages
	}
	return append(f, code...)
}

// pauseImage is the image of the pause program for this machine.
func pauseImage() (v1.Image, error) {
	program, err := pauseProgram(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Name: "pause", Mode: 0o555, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := tw.Write(program); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config = v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}
	return mutate.ConfigFile(image, config)
}
