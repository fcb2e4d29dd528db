package api

import (
	"errors"
	"net/http"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"
)

// progress answers a pull, a push, a load or a build with its records. A client that does not read, as one that was
// suspended, does not hold up the work, which has its share of what all clients' work is done with: what comes meanwhile
// waits in a queue, where of the counts of one layer there is only the newest. Text has no bound; whoever writes it waits
// for the client. Its methods may be called concurrently; after finish it must not be used.
type progress struct {
	w    http.ResponseWriter
	out  *recordWriter
	text bool // the client expects a text with each count

	mu      sync.Mutex
	idle    *sync.Cond // nothing is being sent
	begun   bool       // an answer has been chosen: errors are records
	held    bool
	sending bool
	gone    bool // the client has
	queue   []any
	counts  map[string]int // where in queue the count of a layer waits
}

func newProgress(w http.ResponseWriter, v version) *progress {
	p := &progress{w: w, out: newRecordWriter(w, false), text: v.below(lastProgressText + 1), counts: map[string]int{}}
	p.idle = sync.NewCond(&p.mu)
	return p
}

// begin sends the status. From then on errors are records.
func (p *progress) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send()
}

// hold keeps everything back until release.
func (p *progress) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
}

// release sends the status and what was kept back.
func (p *progress) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
	p.send()
}

// write adds a record. It waits for the client only with text.
func (p *progress) write(message jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(message)
	if message.Stream != "" {
		p.await()
	}
}

// record adds one of any form and waits until the client has taken it, or has gone, which is an error.
func (p *progress) record(value any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(value)
	p.await()
	if p.gone {
		return errClientGone
	}
	return nil
}

var errClientGone = errors.New("the client has gone")

// add queues a record. The caller holds the lock.
func (p *progress) add(record any) {
	if p.gone {
		return // which ends the context of the work
	}
	if m, ok := record.(jsonstream.Message); ok && m.ID != "" {
		at, waits := p.counts[m.ID]
		if waits && isCount(m) && p.queue[at].(jsonstream.Message).Status == m.Status {
			p.queue[at] = m
			return
		}
		delete(p.counts, m.ID)
		if isCount(m) {
			p.counts[m.ID] = len(p.queue)
		}
	}
	p.queue = append(p.queue, record)
	if !p.held {
		p.send()
	}
}

func isCount(m jsonstream.Message) bool { return m.Progress != nil && m.Progress.Current > 0 }

// send has the queue sent. The caller holds the lock.
func (p *progress) send() {
	if !p.sending {
		p.sending = true
		go p.drain(!p.begun)
		p.begun = true
	}
}

// drain sends until the queue is empty. It begins with the status if that is the first of all. finish waits for it.
func (p *progress) drain(first bool) {
	if first {
		p.w.Header().Set("Content-Type", mediaJSON)
		p.w.WriteHeader(http.StatusOK)
		p.out.flush()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		batch := p.queue
		p.queue = nil
		clear(p.counts)
		p.mu.Unlock()
		err := p.put(batch)
		p.mu.Lock()
		if err != nil {
			p.gone, p.queue = true, nil
		}
	}
	p.sending = false
	p.idle.Broadcast()
}

func (p *progress) put(batch []any) error {
	for _, record := range batch {
		if m, ok := record.(jsonstream.Message); ok && p.text {
			record = withProgressText(m)
		}
		if err := p.out.write(record); err != nil {
			return err
		}
	}
	return nil
}

// await waits until all that was added is sent. The caller holds the lock.
func (p *progress) await() {
	for p.sending {
		p.idle.Wait()
	}
}

// finish tells the client how it ended: by a status if nothing has been sent
// yet (the error is returned), else by a last record.
func (p *progress) finish(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && !p.begun {
		return err
	}
	if err != nil {
		detail := &jsonstream.Error{Message: told(err)}
		var own *jsonstream.Error
		if errors.As(err, &own) {
			detail.Code = own.Code
		}
		p.add(errorRecord{Detail: detail, Text: told(err)})
	}
	p.send()
	p.await()
	return nil
}

// errorRecord ends a stream in both forms that clients look for.
type errorRecord struct {
	Detail *jsonstream.Error `json:"errorDetail"`
	Text   string            `json:"error"`
}
