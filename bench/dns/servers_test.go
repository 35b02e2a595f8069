package dns

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	names = 10_000
	quiet = "1" // the processor of the servers; dnsperf has the other
)

// peer is a server that is compared.
type peer struct {
	name    string
	command func(t testing.TB, dir, api, upstream string, port int) []string
	watches bool // it follows the API
}

var peers = []peer{
	{"minato", func(_ testing.TB, _, api, upstream string, port int) []string {
		return []string{binary("minato-dns"), "-api", api, "-port", strconv.Itoa(port), "-upstream", upstream}
	}, true},
	{"CoreDNS, cache 30", func(t testing.TB, dir, api, upstream string, port int) []string {
		return corednsCommand(t, dir, api, upstream, port, "cache 30")
	}, true},
	{"CoreDNS, no cache", func(t testing.TB, dir, api, upstream string, port int) []string {
		return corednsCommand(t, dir, api, upstream, port, "")
	}, true},
	{"NSD", nsdCommand, false},
}

// floor is no server to compare with, but how long a change takes to an answer that costs nothing.
var floor = peer{"the least possible", func(_ testing.TB, _, api, _ string, port int) []string {
	return []string{binary("floor"), "-api", api, "-port", strconv.Itoa(port)}
}, true}

// before is another build of minato-dns, for a comparison of two states of the code: BENCH_BEFORE says where it is.
func before() []peer {
	path := os.Getenv("BENCH_BEFORE")
	if path == "" {
		return nil
	}
	return []peer{{"minato before", func(_ testing.TB, _, api, upstream string, port int) []string {
		return []string{path, "-api", api, "-port", strconv.Itoa(port), "-upstream", upstream}
	}, true}}
}

func binary(name string) string { return filepath.Join(os.Getenv("BENCH_BIN"), name) }

func corednsCommand(t testing.TB, dir, api, upstream string, port int, cache string) []string {
	file := filepath.Join(dir, "Corefile")
	write(t, file, fmt.Sprintf(`.:%d {
  bind 127.0.0.1
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    endpoint %s
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 30
  }
  forward . %s
  loadbalance
  %s
}
`, port, api, upstream, cache))
	return []string{binary("coredns"), "-conf", file}
}

// nsdCommand has the same names in a zone file. NSD is authoritative only: it forwards nothing.
func nsdCommand(t testing.TB, dir, _, _ string, port int) []string {
	var z strings.Builder
	z.WriteString("$ORIGIN cluster.local.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n")
	for i := range names {
		s := service(i)
		fmt.Fprintf(&z, "%s.default.svc A %s\n", s.Name, s.Spec.ClusterIP)
	}
	write(t, filepath.Join(dir, "zone"), z.String())
	conf := filepath.Join(dir, "nsd.conf")
	write(t, conf, fmt.Sprintf(`server:
  server-count: 1
  ip-address: 127.0.0.1@%d
  username: ""
  chroot: ""
  zonesdir: %q
  database: ""
  pidfile: ""
  xfrdfile: ""
  zonelistfile: ""
  logfile: %q
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: cluster.local
  zonefile: zone
`, port, dir, filepath.Join(dir, "log")))
	return []string{os.Getenv("BENCH_NSD"), "-d", "-c", conf}
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// running is a peer that answers.
type running struct {
	at  string
	cmd *exec.Cmd
}

// start runs the peer; alone: on one processor, else on all.
func (p peer) start(t testing.TB, api, upstream string, port int, alone bool) *running {
	t.Helper()
	command := p.command(t, t.TempDir(), api, upstream, port)
	env := os.Environ()
	if alone {
		command = append([]string{"taskset", "-c", quiet}, command...)
		env = append(env, "GOMAXPROCS=1")
	}
	r := &running{at: fmt.Sprintf("127.0.0.1:%d", port), cmd: exec.Command(command[0], command[1:]...)}
	r.cmd.Env = env
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill(); r.cmd.Wait() })
	last := service(names - 1)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if addr, _ := ask(r.at, last.Name+".default.svc.cluster.local."); addr == last.Spec.ClusterIP {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer", p.name)
		}
	}
}

// ask returns the address of a name, "" when there is none.
func ask(at, name string) (string, error) {
	c := mdns.Client{Timeout: 2 * time.Second}
	m, _, err := c.Exchange(new(mdns.Msg).SetQuestion(name, mdns.TypeA), at)
	if err != nil || len(m.Answer) == 0 {
		return "", err
	}
	if a, ok := m.Answer[0].(*mdns.A); ok {
		return a.A.String(), nil
	}
	return "", nil
}

// pids are the process's and its children's: NSD answers in a child.
func (r *running) pids() []int {
	all, waiting := []int{}, []int{r.cmd.Process.Pid}
	for len(waiting) > 0 {
		pid := waiting[0]
		waiting, all = waiting[1:], append(all, pid)
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		for _, f := range strings.Fields(string(b)) {
			child, _ := strconv.Atoi(f)
			waiting = append(waiting, child)
		}
	}
	return all
}

// processor is the processor time that it has used.
func (r *running) processor(t testing.TB) (total time.Duration) {
	t.Helper()
	for _, pid := range r.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		total += time.Duration(user+system) * 10 * time.Millisecond
	}
	return total
}

// memory is its resident set in MB.
func (r *running) memory(t testing.TB) (mb float64) {
	t.Helper()
	for _, pid := range r.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kb, _ := strconv.Atoi(strings.Fields(rest)[0])
				mb += float64(kb) / 1024
			}
		}
	}
	return mb
}

// startUpstream answers every question with one address.
func startUpstream(t testing.TB) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		rr, _ := mdns.NewRR(q.Question[0].Name + " 3600 IN A 192.0.2.1")
		m.Answer = append(m.Answer, rr)
		w.WriteMsg(m)
	})}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.Shutdown() })
	return pc.LocalAddr().String()
}
