package run

import (
	"net/netip"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/show"
)

// holds reads what the node's kernel has of a frontend, for any client.
func (a *agent) holds(k nftables.Key) (nftables.Held, error) {
	answer, _, found, err := a.dataplane.Read(k, netip.Addr{})
	return heldBy(answer, found), err
}

// connections reads what the node's kernel has counted.
func (a *agent) connections(only model.ServiceName) ([]show.Connection, error) {
	pools, err := a.dataplane.Connections(only)
	rows := []show.Connection{}
	for _, p := range pools {
		r := show.Connection{
			Service: p.Service.String(), Port: p.Port, Protocol: p.Protocol.String(), Family: "IPv4", Policy: p.Policy.String(),
			Forwarded: p.Forwarded, Refused: p.Refused, Dropped: p.Dropped,
		}
		if p.IPv6 {
			r.Family = "IPv6"
		}
		for _, e := range p.Endpoints {
			row := show.EndpointConnection{Address: e.Addr}
			if e.Counted {
				row.Forwarded = &e.Forwarded
			}
			r.Endpoints = append(r.Endpoints, row)
		}
		rows = append(rows, r)
	}
	return rows, err
}
