package proxy

import (
	"context"
	"crypto/tls"

	"minato/internal/ingress"
	"minato/internal/model"
)

// Name is the component's name in reports of package apply.
func (s *Server) Name() string { return "ingress" }

// Plan is what the proxy does now.
func (s *Server) Plan() *ingress.Plan { return s.table.Load().plan }

// Withdraw stops sending requests to routes and backends that next does not have.
func (s *Server) Withdraw(ctx context.Context, next *model.Snapshot) error {
	if err := ctx.Err(); err != nil || !next.Complete || !next.IngressesKnown {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = s.planned.Next(next)
	s.show(s.Plan().Withdraw(s.planned))
	return nil
}

// Publish takes over next. Pools of held Services keep the backends that they have.
func (s *Server) Publish(ctx context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error {
	if err := ctx.Err(); err != nil || !next.Complete || !next.IngressesKnown {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = s.planned.Next(next)
	s.show(s.planned.Hold(held, s.Plan()))
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// show makes a plan what requests see. Pools go on under their names; only what differs in them is touched.
func (s *Server) show(p *ingress.Plan) {
	old := s.table.Load()
	next := &table{plan: p, pools: map[ingress.PoolName]*pool{}, certificates: map[*model.Certificate]*tls.Certificate{}}
	p.EachPool(func(planned *ingress.Pool) {
		have := old.pools[planned.Name]
		if have == nil {
			have = s.newPool()
		}
		have.update(planned)
		next.pools[planned.Name] = have
	})
	for c := range p.Certificates() {
		if next.certificates[c] = old.certificates[c]; next.certificates[c] == nil {
			next.certificates[c] = &tls.Certificate{Certificate: c.Chain, PrivateKey: c.Key.Reveal()}
		}
	}
	s.table.Store(next)
	for name, p := range old.pools {
		if next.pools[name] == nil {
			p.update(nil)
		}
	}
}

// certificate is the one for a client's SNI, else the default one.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	t := s.table.Load()
	if found := t.plan.TLS(ingress.Hostname(hello.ServerName)); found != nil {
		if c := t.certificates[found.Certificate]; c != nil {
			return c, nil
		}
	}
	return s.cfg.Default, nil
}
