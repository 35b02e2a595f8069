package store

import (
	"context"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Object is one key of the store and what it holds.
type Object struct {
	Key   []byte `json:"k"`
	Value []byte `json:"v"`
	Lease bool   `json:"l,omitempty"` // it goes away by itself, as events do
}

const (
	page       = 500
	batchBytes = 512 << 10 // etcd refuses requests of more than 1.5 MiB
	// leaseTTL is what objects with a lease get anew, in seconds: that of events.
	leaseTTL = 3600
)

// Dump reads all objects as they are at one moment, in the order of their keys, while others write.
func Dump(ctx context.Context, client *clientv3.Client) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		var revision int64
		for key := "\x00"; ; {
			answer, err := client.Get(ctx, key, clientv3.WithFromKey(), clientv3.WithLimit(page), clientv3.WithRev(revision))
			if err != nil {
				yield(Object{}, fmt.Errorf("reading the store: %w", err))
				return
			}
			if revision == 0 {
				revision = answer.Header.Revision // later pages are of the same moment
			}
			for _, kv := range answer.Kvs {
				if !yield(Object{kv.Key, kv.Value, kv.Lease != 0}, nil) {
					return
				}
			}
			if !answer.More {
				return
			}
			key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
		}
	}
}

// Fill writes objects into an empty store. They have new revisions: who watched the old store must list anew.
func Fill(ctx context.Context, client *clientv3.Client, objects iter.Seq2[Object, error]) error {
	var lease clientv3.LeaseID
	var batch []clientv3.Op
	var bytes int
	commit := func() error {
		if _, err := client.Txn(ctx).Then(batch...).Commit(); err != nil {
			return fmt.Errorf("writing the store: %w", err)
		}
		batch, bytes = batch[:0], 0
		return nil
	}
	for o, err := range objects {
		if err != nil {
			return err
		}
		if o.Lease && lease == 0 {
			granted, err := client.Grant(ctx, leaseTTL)
			if err != nil {
				return fmt.Errorf("writing the store: %w", err)
			}
			lease = granted.ID
		}
		var options []clientv3.OpOption
		if o.Lease {
			options = append(options, clientv3.WithLease(lease))
		}
		bytes += len(o.Key) + len(o.Value)
		if batch = append(batch, clientv3.OpPut(string(o.Key), string(o.Value), options...)); len(batch) == maxTxnOps || bytes > batchBytes {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return commit()
}
