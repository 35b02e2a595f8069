// Minato-dns is minato's DNS server alone: an API server is watched, names are published, nothing is programmed.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/rest"

	"minato/internal/dns"
	"minato/internal/dns/server"
	"minato/internal/source"
	"minato/internal/source/kube"
)

func main() {
	api := flag.String("api", "", "URL of the API server")
	port := flag.Uint("port", 53, "port of 127.0.0.1 to answer at")
	upstream := flag.String("upstream", "", "ADDRESS:PORT of the resolver of other names")
	flag.Parse()
	if err := run(*api, uint16(*port), netip.MustParseAddrPort(*upstream)); err != nil {
		log.Fatal(err)
	}
}

func run(api string, port uint16, upstream netip.AddrPort) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	self := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	table, err := dns.NewTable(dns.Zone{Domain: "cluster.local", Reverse: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, Addrs: self})
	if err != nil {
		return err
	}
	s, err := server.New(server.Config{Addrs: self, Port: port, Table: table, Log: slog.New(slog.DiscardHandler), Upstreams: []netip.AddrPort{upstream}})
	if err != nil {
		return err
	}
	client, err := kube.Client(&rest.Config{Host: api, QPS: -1})
	if err != nil {
		return err
	}
	b := source.NewBuilder()
	errs := make(chan error, 3)
	go func() { errs <- kube.RunServices(ctx, client, b) }()
	go func() { errs <- publish(ctx, b, table) }()
	go func() { errs <- s.Run(ctx) }()
	for range 3 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// publish is what package apply does, without a dataplane between the phases.
func publish(ctx context.Context, b *source.Builder, t *dns.Table) error {
	changed, cancel := b.Subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		next := b.Current()
		if err := t.Withdraw(ctx, next); err != nil {
			return err
		}
		if err := t.Publish(ctx, next, nil); err != nil {
			return err
		}
	}
}
