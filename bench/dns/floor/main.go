// Floor is the least that can follow an API server and answer for its Services: a watch, a map and a socket. What it
// takes from a change to an answer is the API's own delay and the machine's; a DNS server is judged by what it takes
// beyond that. It is no DNS server.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"sync"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

func main() {
	api := flag.String("api", "", "URL of the API server")
	port := flag.Uint("port", 53, "port of 127.0.0.1 to answer at")
	flag.Parse()
	var names sync.Map // a Service's name: its address
	errs := make(chan error, 2)
	go func() { errs <- follow(*api, &names) }()
	go func() {
		errs <- mdns.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), "udp", mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
			m := new(mdns.Msg).SetReply(q)
			if addr, ok := names.Load(mdns.SplitDomainName(q.Question[0].Name)[0]); ok {
				rr, _ := mdns.NewRR(fmt.Sprintf("%s 5 IN A %s", q.Question[0].Name, addr))
				m.Answer = append(m.Answer, rr)
			}
			w.WriteMsg(m)
		}))
	}()
	log.Fatal(<-errs)
}

// follow keeps names at what the API says, until it fails.
func follow(api string, names *sync.Map) error {
	var list corev1.ServiceList
	answer, err := http.Get(api + "/api/v1/services")
	if err != nil {
		return err
	}
	if err := json.NewDecoder(answer.Body).Decode(&list); err != nil {
		return err
	}
	answer.Body.Close()
	for _, s := range list.Items {
		names.Store(s.Name, s.Spec.ClusterIP)
	}
	events, err := http.Get(api + "/api/v1/services?watch=true")
	if err != nil {
		return err
	}
	defer events.Body.Close()
	for d := json.NewDecoder(events.Body); ; {
		var e struct{ Object corev1.Service }
		if err := d.Decode(&e); err != nil {
			return err
		}
		names.Store(e.Object.Name, e.Object.Spec.ClusterIP)
	}
}
