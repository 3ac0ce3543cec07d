package workload

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/history"
)

// Do carries out one operation and records it.
func (w *Workload) Do(ctx context.Context, c Client, request history.Request) history.Op {
	op := history.Op{Client: c.Name, Request: request, Call: w.Now()}
	before := c.Conns.current()
	bounded, cancel := context.WithTimeout(ctx, OpTimeout)
	defer cancel()
	var err error
	op.Response, err = send(bounded, c.Client, &request)
	op.Return = w.Now()
	if c.Conns.current() == before {
		op.Conn = before
	}
	op.Outcome = outcome(err)
	if err != nil {
		op.Err, op.Code = err.Error(), Code(err)
	}
	w.Add(op)
	return op
}

func send(ctx context.Context, client *clientv3.Client, r *history.Request) (history.Response, error) {
	if r.Txn {
		return sendTxn(ctx, client, r)
	}
	out, err := client.Do(ctx, operation(r.Then[0], r))
	if err != nil {
		return history.Response{}, err
	}
	response := history.Response{Succeeded: true}
	switch r.Then[0].Kind {
	case history.Range:
		response.Revision = out.Get().Header.Revision
		response.Results = []history.Result{ranged((*pb.RangeResponse)(out.Get()))}
	case history.Put:
		response.Revision = out.Put().Header.Revision
		response.Results = []history.Result{written((*pb.PutResponse)(out.Put()))}
	default:
		response.Revision = out.Del().Header.Revision
		response.Results = []history.Result{deleted((*pb.DeleteRangeResponse)(out.Del()))}
	}
	return response, nil
}

func sendTxn(ctx context.Context, client *clientv3.Client, r *history.Request) (history.Response, error) {
	txn := client.Txn(ctx)
	var conditions []clientv3.Cmp
	for _, c := range r.Compares {
		conditions = append(conditions, condition(c))
	}
	var then, otherwise []clientv3.Op
	for _, a := range r.Then {
		then = append(then, operation(a, r))
	}
	for _, a := range r.Else {
		otherwise = append(otherwise, operation(a, r))
	}
	out, err := txn.If(conditions...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return history.Response{}, err
	}
	response := history.Response{Revision: out.Header.Revision, Succeeded: out.Succeeded}
	for _, one := range out.Responses {
		switch {
		case one.GetResponseRange() != nil:
			response.Results = append(response.Results, ranged(one.GetResponseRange()))
		case one.GetResponsePut() != nil:
			response.Results = append(response.Results, written(one.GetResponsePut()))
		default:
			response.Results = append(response.Results, deleted(one.GetResponseDeleteRange()))
		}
	}
	return response, nil
}

func condition(c history.Compare) clientv3.Cmp {
	switch c.Target {
	case history.CompareValue:
		return clientv3.Compare(clientv3.Value(c.Key), "=", c.Value)
	case history.CompareMod:
		return clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Number)
	case history.CompareCreate:
		return clientv3.Compare(clientv3.CreateRevision(c.Key), "=", c.Number)
	default:
		return clientv3.Compare(clientv3.Version(c.Key), "=", c.Number)
	}
}

func operation(a history.Action, r *history.Request) clientv3.Op {
	var options []clientv3.OpOption
	if a.End != "" {
		options = append(options, clientv3.WithRange(a.End))
	}
	if a.Prev {
		options = append(options, clientv3.WithPrevKV())
	}
	switch a.Kind {
	case history.Put:
		if a.Lease != 0 {
			options = append(options, clientv3.WithLease(clientv3.LeaseID(a.Lease)))
		}
		return clientv3.OpPut(a.Key, a.Value, options...)
	case history.Delete:
		return clientv3.OpDelete(a.Key, options...)
	default:
		if r.Serializable {
			options = append(options, clientv3.WithSerializable())
		}
		if r.Revision != 0 {
			options = append(options, clientv3.WithRev(r.Revision))
		}
		return clientv3.OpGet(a.Key, options...)
	}
}

func ranged(r *pb.RangeResponse) history.Result {
	return history.Result{KVs: keys(r.Kvs), Count: r.Count}
}

func written(r *pb.PutResponse) history.Result {
	if r.PrevKv == nil {
		return history.Result{}
	}
	return history.Result{KVs: keys([]*mvccpb.KeyValue{r.PrevKv})}
}

func deleted(r *pb.DeleteRangeResponse) history.Result {
	return history.Result{KVs: keys(r.PrevKvs), Count: r.Deleted}
}

// Keys are the keys of an answer as the record has them.
func Keys(kvs []*mvccpb.KeyValue) []history.KV { return keys(kvs) }

func keys(kvs []*mvccpb.KeyValue) (out []history.KV) {
	for _, kv := range kvs {
		out = append(out, key(kv))
	}
	return out
}

func key(kv *mvccpb.KeyValue) history.KV {
	return history.KV{
		Key: string(kv.Key), Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, LeaseID: kv.Lease,
	}
}
