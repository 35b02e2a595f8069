package feed

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// watch streams the events after the revision that the client knows. One who asks for the initial events gets all
// objects and then a bookmark that says so.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, res *resource) {
	out := newStream(w, r, res)
	known, _ := strconv.ParseInt(r.URL.Query().Get("resourceVersion"), 10, 64)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		s.mu.Lock()
		objects := slices.Collect(maps.Values(res.objects))
		known = s.revision
		s.mu.Unlock()
		for _, o := range objects {
			if out.send(event{Event: watch.Event{Type: watch.Added, Object: o}, encoded: new(sync.Map)}) != nil {
				return
			}
		}
		if out.send(out.initialEnd(known)) != nil {
			return
		}
	}
	out.flush()
	for next := 0; ; {
		s.mu.Lock()
		news, more := res.events[min(next, len(res.events)):], res.more
		s.mu.Unlock()
		next += len(news)
		sent := false
		for _, e := range news {
			if e.revision > known {
				if out.send(e) != nil {
					return
				}
				sent = true
			}
		}
		if sent {
			out.flush()
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

// stream encodes events for one client.
type stream struct {
	w      http.ResponseWriter
	res    *resource
	media  string
	framer runtime.Framer
	object runtime.Encoder
	event  runtime.Encoder
}

func newStream(w http.ResponseWriter, r *http.Request, res *resource) *stream {
	info := negotiate(r)
	gv := res.kind.GroupVersion()
	typ := info.MediaType
	if typ == runtime.ContentTypeProtobuf {
		typ += ";stream=watch"
	}
	w.Header().Set("Content-Type", typ)
	w.WriteHeader(http.StatusOK)
	return &stream{w: w, res: res, media: info.MediaType, framer: info.StreamSerializer.Framer,
		object: scheme.Codecs.EncoderForVersion(info.Serializer, gv),
		event:  scheme.Codecs.EncoderForVersion(info.StreamSerializer.Serializer, gv)}
}

// send writes an event, which is encoded once for all clients of a media type.
func (s *stream) send(e event) error {
	if frame, ok := e.encoded.Load(s.media); ok {
		_, err := s.w.Write(frame.([]byte))
		return err
	}
	raw, err := runtime.Encode(s.object, e.Object)
	if err != nil {
		return err
	}
	var frame bytes.Buffer
	if err := s.event.Encode(&metav1.WatchEvent{Type: string(e.Type), Object: runtime.RawExtension{Raw: raw}}, s.framer.NewFrameWriter(&frame)); err != nil {
		return err
	}
	e.encoded.Store(s.media, frame.Bytes())
	_, err = s.w.Write(frame.Bytes())
	return err
}

// initialEnd is the bookmark after the initial events.
func (s *stream) initialEnd(revision int64) event {
	o, err := scheme.Scheme.New(s.res.kind)
	if err != nil {
		panic(err) // the kind is one of the scheme
	}
	m := o.(Object)
	m.SetResourceVersion(strconv.FormatInt(revision, 10))
	m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	m.GetObjectKind().SetGroupVersionKind(s.res.kind)
	return event{Event: watch.Event{Type: watch.Bookmark, Object: m}, encoded: new(sync.Map)}
}

func (s *stream) flush() {
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}
