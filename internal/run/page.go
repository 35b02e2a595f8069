package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"minato/internal/dashboard"
	"minato/internal/web"
)

// page is what `minato dashboard` shows.
func (u *instanceRun) page(pods podGetter) http.Handler {
	return dashboard.Handler(dashboard.Config{
		Instance: u.inst.Name, Source: u.builder, Board: u.board, Own: except(),
		Explain: func(ctx context.Context, to, from, protocol string) (dashboard.Answer, error) {
			q := web.Query{From: from, Protocol: protocol}
			var text, data bytes.Buffer
			if _, err := u.explain(ctx, to, q, pods, &text); err != nil {
				return dashboard.Answer{}, err
			}
			q.JSON = true
			if _, err := u.explain(ctx, to, q, pods, &data); err != nil {
				return dashboard.Answer{}, err
			}
			return pageAnswer(text.String(), data.Bytes())
		},
	})
}

// pageAnswer takes from an explanation what the page marks.
func pageAnswer(text string, data []byte) (dashboard.Answer, error) {
	var r struct {
		Verdict, Service string
		Backends         []struct{ Address string }
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return dashboard.Answer{}, fmt.Errorf("read the explanation: %w", err)
	}
	a := dashboard.Answer{Verdict: r.Verdict, Text: text, Service: r.Service, Addrs: []string{}}
	for _, b := range r.Backends {
		a.Addrs = append(a.Addrs, dashboard.HostOf(b.Address))
	}
	return a, nil
}
