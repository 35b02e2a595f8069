package dns

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	rounds  = flag.Int("rounds", 5, "rounds, in each of which every server is asked in turn")
	seconds = flag.Int("seconds", 3, "of asking, each time")
	changes = flag.Int("changes", 200, "Services written to measure the time to an answer")
	only    = flag.String("only", "", "part of the names of the servers to compare")
)

// compared are the servers that -only leaves.
func compared() (out []peer) {
	for _, p := range append(slices.Clone(peers), before()...) {
		if strings.Contains(p.name, *only) {
			out = append(out, p)
		}
	}
	return out
}

// loads are files of questions for dnsperf.
func loads() map[string]string {
	var existing, search, forwarded strings.Builder
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(names) {
		fmt.Fprintf(&existing, "svc-%d.default.svc.cluster.local A\n", i)
		fmt.Fprintf(&search, "www.example%d.com.default.svc.cluster.local A\n", i%1000)
	}
	for i := range 100 {
		fmt.Fprintf(&forwarded, "www.example%d.com A\n", i)
	}
	return map[string]string{"existing name": existing.String(), "search list, NXDOMAIN": search.String(), "forwarded, cached": forwarded.String()}
}

func TestCompare(t *testing.T) {
	api, upstream := startAPI(t, names), startUpstream(t)
	files := map[string]string{}
	for load, text := range loads() {
		files[load] = filepath.Join(t.TempDir(), "questions")
		write(t, files[load], text)
	}
	servers, peers := map[string]*running{}, compared()
	for i, p := range peers {
		servers[p.name] = p.start(t, api.url, upstream, 21053+i, true)
		t.Logf("%-20s %6.0f MB with %d Services", p.name, servers[p.name].memory(t), names)
	}
	for _, load := range []string{"existing name", "search list, NXDOMAIN", "forwarded, cached"} {
		used := map[string][]float64{}
		for range *rounds {
			for _, p := range peers {
				if load == "forwarded, cached" && p.name == "NSD" {
					continue
				}
				used[p.name] = append(used[p.name], perQuestion(t, servers[p.name], files[load]))
			}
		}
		for _, p := range peers {
			if len(used[p.name]) == 0 {
				continue
			}
			t.Logf("%-22s %-20s µs of CPU a question: %s; minato's / this: %s", load, p.name, show(used[p.name]), ratio(used["minato"], used[p.name]))
		}
	}
	for _, p := range peers {
		t.Logf("%-20s %6.0f MB after all questions", p.name, servers[p.name].memory(t))
	}
}

// perQuestion is the processor time that a question takes, in µs.
func perQuestion(t *testing.T, r *running, file string) float64 {
	t.Helper()
	host, port, _ := strings.Cut(r.at, ":")
	run := func(seconds string) float64 {
		out, err := exec.Command("taskset", "-c", "0", "dnsperf", "-s", host, "-p", port, "-d", file, "-l", seconds, "-c", "8", "-q", "100").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "Queries completed:"); ok {
				var n float64
				fmt.Sscan(rest, &n)
				return n
			}
		}
		t.Fatalf("dnsperf said %s", out)
		return 0
	}
	run("1") // caches fill
	before := r.processor(t)
	n := run(fmt.Sprint(*seconds))
	return float64((r.processor(t) - before).Microseconds()) / n
}

func show(v []float64) string {
	s := slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%.1f (%.1f to %.1f)", s[len(s)/2], s[0], s[len(s)-1])
}

// ratio is the median of the ratios of each round.
func ratio(a, b []float64) string {
	var r []float64
	for i := range a {
		r = append(r, a[i]/b[i])
	}
	return strings.ReplaceAll(show1(r), " ", "")
}

func show1(v []float64) string {
	s := slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%.2f", s[len(s)/2])
}

func TestTimeToAnAnswer(t *testing.T) {
	for _, rate := range []int{0, 1000} {
		for _, p := range append(compared(), floor) {
			if !p.watches || p.name == "CoreDNS, cache 30" { // which answers from its cache
				continue
			}
			t.Run(fmt.Sprintf("%s, %d changes a second", p.name, rate), func(t *testing.T) {
				a := startAPI(t, names)
				r := p.start(t, a.url, startUpstream(t), 21063, false)
				stop := make(chan struct{})
				done := make(chan struct{})
				go func() { defer close(done); churn(a, rate, stop) }()
				var took []float64
				for i := range *changes {
					took = append(took, toAnswer(t, a, r, 20_000+i).Seconds()*1000)
					time.Sleep(5 * time.Millisecond)
				}
				close(stop)
				<-done
				slices.Sort(took)
				t.Logf("p50 %.2f ms, p99 %.2f ms, at most %.2f ms", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			})
		}
	}
}

// churn changes other Services, some in each millisecond.
func churn(a *api, rate int, stop <-chan struct{}) {
	if rate == 0 {
		return
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
			s := service(30_000 + i%30_000)
			s.Name = fmt.Sprintf("svc-%d", i%(names/2))
			a.write(s)
		}
	}
}

// toAnswer writes a new Service and asks until it is there.
func toAnswer(t *testing.T, a *api, r *running, i int) time.Duration {
	t.Helper()
	s := service(i)
	began := time.Now()
	a.write(s)
	for {
		addr, err := ask(r.at, s.Name+".default.svc.cluster.local.")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); addr == s.Spec.ClusterIP {
			return took
		} else if took > 30*time.Second {
			t.Fatalf("%s is not there after 30 s", s.Name)
		}
		// A client that asks without a pause keeps a processor from the server; Go's own timers are of a millisecond.
		syscall.Nanosleep(&syscall.Timespec{Nsec: 50_000}, nil)
	}
}
