package apiserver

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// bridgeLogs sends what upstream's code logs to log, for debugging: its "info" tells
// of every start and stop of a loop, its "error" mostly of what is retried at once and
// works then. What a user must know is in the API. It holds for the whole process.
func bridgeLogs(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(debugOnly{log.Handler()}))
}

// debugOnly is a handler which takes every record for a debugging one.
type debugOnly struct{ slog.Handler }

func (h debugOnly) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, min(l, slog.LevelDebug))
}

func (h debugOnly) Handle(ctx context.Context, r slog.Record) error {
	r.Level = min(r.Level, slog.LevelDebug)
	if !h.Handler.Enabled(ctx, r.Level) { // logr does not ask before an error
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h debugOnly) WithAttrs(as []slog.Attr) slog.Handler { return debugOnly{h.Handler.WithAttrs(as)} }
func (h debugOnly) WithGroup(name string) slog.Handler    { return debugOnly{h.Handler.WithGroup(name)} }
