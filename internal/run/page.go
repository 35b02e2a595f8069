package run

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"minato/internal/dashboard"
	"minato/internal/explain"
	"minato/internal/source/kube"
)

// page is what `minato dashboard` shows.
func (u *instanceRun) page(pods func(context.Context) *kube.Pods) http.Handler {
	return dashboard.Handler(dashboard.Config{
		Instance: u.inst.Name, Source: u.builder, Board: u.board, Own: except(),
		Explain: func(ctx context.Context, to, from, protocol string) (dashboard.Answer, error) {
			p := pods(ctx)
			r, err := explain.Explain(u.world(p), explain.Query{To: to, From: from, Protocol: protocol})
			if err = errors.Join(p.Err(), err); err != nil {
				return dashboard.Answer{}, err
			}
			var text strings.Builder
			if err := r.WriteText(&text); err != nil {
				return dashboard.Answer{}, err
			}
			a := dashboard.Answer{Verdict: string(r.Verdict), Text: text.String(), Service: r.Service, Addrs: []string{}}
			for _, b := range r.Backends {
				a.Addrs = append(a.Addrs, b.Addr.Addr().String())
			}
			return a, nil
		},
	})
}
