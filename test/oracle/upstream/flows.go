package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Flow is a packet that opens a connection, and what is to become of it.
type Flow struct {
	Name, Source, Protocol, Dest string
	Port                         int
	Output                       string // "address:port, address:port", DROP, REJECT, ACCEPT, or empty: nothing is done to it
	Masq                         bool   // the endpoint sees the node's address
}

// Block is the packets that a test sends through a proxier in one state.
type Block struct {
	Suite, Test         string
	Flows               []Flow
	IPv6                bool
	Node                string
	NodePortAddrs       []string // of the node, at which NodePorts are answered
	NodePortsEverywhere bool     // at all its addresses, loopback among them
	KnowsPods           bool     // which addresses are pods of the node
	MasqueradeAll       bool
	Services            []*corev1.Service
	Slices              []*discoveryv1.EndpointSlice
}

// Blocks are the packet flow tests of a mode of kube-proxy: "nftables" or "iptables".
func Blocks(mode, dir string) ([]Block, error) {
	flows := `{ var oracle []oracleFlow
		for _, tc := range testCases { oracle = append(oracle, oracleFlow{tc.name, tc.sourceIP, string(tc.protocol), tc.destIP, tc.destPort, tc.output, tc.masq}) }
		oracleFlows(t.Name(), oracle) }`
	s := Suite{Path: path.Join("pkg/proxy", mode), Probes: []string{"flows.go.txt"}, Tests: ".", Calls: map[string]string{
		"Proxier.OnServiceUpdate":       "oracleService(proxier, oldService, service)",
		"Proxier.OnEndpointSliceAdd":    "oracleSlice(proxier, endpointSlice, false)",
		"Proxier.OnEndpointSliceUpdate": "oracleSlice(proxier, endpointSlice, false)",
		"Proxier.OnEndpointSliceDelete": "oracleSlice(proxier, endpointSlice, true)",
		"runPacketFlowTests":            strings.ReplaceAll(flows, "\n", ";"),
		// A proxier that was told of nothing yet has not the objects of the one before.
		"NewFakeProxier": "oracleNow = nil",
	}}
	var blocks []Block
	err := Run(s, dir, func(line []byte) error {
		var b Block
		d := json.NewDecoder(bytes.NewReader(line))
		if err := d.Decode(&b); err != nil {
			return fmt.Errorf("read a record: %w", err)
		}
		b.Suite = mode
		blocks = append(blocks, b)
		return nil
	})
	return blocks, err
}
