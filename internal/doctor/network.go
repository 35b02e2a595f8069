//go:build linux

package doctor

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"minato/internal/cluster/nodes"
)

// without splits what was tried into names that work and those that do not.
func without(tried []Feature) (works []string, missing []Feature) {
	for _, f := range tried {
		if f.Err == nil {
			works = append(works, f.Name)
		} else {
			missing = append(missing, f)
		}
	}
	return works, missing
}

func firstError(missing []Feature) string {
	var names []string
	for _, f := range missing {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ") + ": " + missing[0].Err.Error()
}

// optional are features without which Services work all the same.
var optional = []string{"SCTP"}

func features(_ context.Context, s System, _ Want) (Finding, error) {
	works, missing := without(s.Features())
	needed := slices.DeleteFunc(slices.Clone(missing), func(f Feature) bool { return slices.Contains(optional, f.Name) })
	switch {
	case len(needed) > 0 && errors.Is(needed[0].Err, unix.EPERM):
		return Finding{}, needed[0].Err
	case len(needed) > 0:
		return fail("use a kernel with CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_CT, CONFIG_NFT_NUMGEN and CONFIG_NFT_REJECT (modprobe nf_tables shows whether it has them)",
			"missing: %s", firstError(needed))
	case len(missing) > 0:
		return warn("only pods that speak SCTP need it: modprobe sctp", "%s; missing: %s", strings.Join(works, ", "), firstError(missing))
	}
	return ok("%s", strings.Join(works, ", "))
}

func links(_ context.Context, s System, _ Want) (Finding, error) {
	works, missing := without(s.Links())
	switch {
	case len(missing) > 0 && errors.Is(missing[0].Err, unix.EPERM):
		return Finding{}, missing[0].Err
	case len(missing) > 0:
		return fail("use a kernel with CONFIG_BRIDGE, CONFIG_VETH and CONFIG_OVERLAY_FS", "missing: %s", firstError(missing))
	}
	return ok("%s", strings.Join(works, ", "))
}

func forwarding(_ context.Context, s System, _ Want) (Finding, error) {
	b, err := s.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return Finding{}, err
	}
	if strings.TrimSpace(string(b)) == "1" {
		return ok("net.ipv4.ip_forward is on")
	}
	mounts, err := s.ReadFile("/proc/mounts")
	if err != nil {
		return Finding{}, err
	}
	for line := range strings.Lines(string(mounts)) { // device mountpoint type options
		if v := strings.Fields(line); len(v) > 3 && v[1] == "/proc/sys" && slices.Contains(strings.Split(v[3], ","), "ro") {
			return warn("set it outside of this container: sysctl net.ipv4.ip_forward=1", "net.ipv4.ip_forward is off and cannot be set here: pods will not reach the outside")
		}
	}
	return ok("net.ipv4.ip_forward is off; minato up turns it on, minato down off again")
}

func ranges(_ context.Context, s System, _ Want) (Finding, error) {
	_, err := s.Look()
	var used *nodes.RangeError
	switch {
	case errors.As(err, &used):
		return fail("choose another range with "+used.Flag, "%s is in use by %s", used.Wanted, used.User)
	case err != nil:
		return Finding{}, err
	}
	return ok("free, or the instance's own")
}

func firewalls(_ context.Context, s System, _ Want) (Finding, error) {
	f, err := s.Look()
	switch {
	case errors.Is(err, nodes.ErrRangeInUse):
		return warn("choose another range first", "not looked at")
	case err != nil:
		return Finding{}, err
	case len(f.Notices) > 0:
		return warn(f.Notices[0].Command, "%s", f.Notices[0].Problem)
	case len(f.Opened) > 0:
		return ok("%s; minato up lets the nodes through, minato delete closes it again", strings.Join(f.Opened, ", "))
	}
	return ok("none that drops what the nodes forward")
}

// portDNS is a matter of taste: cluster DNS listens in the nodes' own namespaces.
func portDNS(_ context.Context, s System, _ Want) (Finding, error) {
	err := s.Listen("udp", "0.0.0.0:53")
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return ok("the host's is used by %s, which does not matter: nodes have their own", s.Owner("udp", 53))
	case err != nil:
		return Finding{}, err
	}
	return ok("free")
}

func portAPI(_ context.Context, s System, w Want) (Finding, error) {
	if w.Running {
		return ok("%d, the running instance's", w.APIPort)
	}
	err := s.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(w.APIPort))))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return warn("nothing: the next free port is taken, or choose one with --api-port", "%d is used by %s", w.APIPort, s.Owner("tcp", w.APIPort))
	case err != nil:
		return Finding{}, err
	}
	return ok("%d is free", w.APIPort)
}
