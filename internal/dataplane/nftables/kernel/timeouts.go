//go:build linux

package kernel

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// timeouts are how many seconds conntrack keeps a connection of TCP in a state, by kube-proxy's defaults
// (pkg/proxy/apis/config/v1alpha1/defaults.go). With the kernel's own minute, a client that has said all and waits for
// its answer loses it; with its five days, connections that nobody ended fill the table.
var timeouts = map[string]int{"close_wait": 3600, "established": 86400}

// setTimeouts sets the timeouts of the node's namespace. Where that is not allowed, they stay and the log says so.
func (a *Applier) setTimeouts() {
	for state, seconds := range timeouts {
		err := a.cfg.Netns.Do(func() error {
			file := "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_" + state
			now, err := os.ReadFile(file)
			if err != nil || strings.TrimSpace(string(now)) == strconv.Itoa(seconds) {
				return err
			}
			return os.WriteFile(file, []byte(strconv.Itoa(seconds)), 0)
		})
		if err != nil {
			a.cfg.Log.Warn("conntrack keeps its own timeout", "namespace", a.cfg.Netns.String(), "state", state,
				"wanted", fmt.Sprint(seconds, " s"), "error", err)
		}
	}
}
