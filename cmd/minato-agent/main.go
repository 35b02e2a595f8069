// Command minato-agent is minato on a node of an existing cluster, in the place of kube-proxy. See docs/agent.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"minato/internal/run/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "minato-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	host, _ := os.Hostname()
	cfg := agent.Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flag.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API; without it, as a pod of the cluster does")
	flag.StringVar(&cfg.NodeName, "node-name", strings.ToLower(host), "`name` of this machine's Node object")
	flag.Func("service-cidr", "`range` of ClusterIPs, once for each: packets to addresses in it that are none are dropped", func(s string) error {
		p, err := netip.ParsePrefix(s)
		cfg.ServiceCIDRs = append(cfg.ServiceCIDRs, p)
		return err
	})
	flag.TextVar(&cfg.MetricsAddr, "metrics-address", netip.AddrFrom4([4]byte{127, 0, 0, 1}), "`address` at whose port 10249 figures are to be had; 0.0.0.0 or :: is all")
	flag.BoolVar(&cfg.Localhost, "localhost-nodeports", false, "answer NodePorts over TCP and UDP at 127.0.0.1 and ::1 too, by a socket for each")
	flag.Func("affinity-clients", "`number` of clients that session affinity remembers, for each of IPv4 and IPv6; default 262144", func(s string) (err error) {
		cfg.Clients, err = clients(s)
		return err
	})
	cleanup := flag.Bool("cleanup", false, "take away all rules that minato-agent has left, and end")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("leave out %q: there are flags only", flag.Args())
	}
	if *cleanup {
		return agent.Cleanup(ctx)
	}
	return agent.Run(ctx, cfg)
}

// mostClients bounds the memory that the kernel takes for clients before there are any: 16 bytes for each.
const mostClients = 1 << 22

func clients(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > mostClients {
		return 0, fmt.Errorf("give a number from 1 to %d", mostClients)
	}
	return n, nil
}
