package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/cleatlabs/cleat/internal/supervise"
)

const (
	// allForwards bounds the questions of all containers that wait for name servers.
	allForwards = 2048
	// sameQuestion bounds those that wait for one answer.
	sameQuestion = 64
	// headStart is how long a name server is asked alone.
	headStart = 150 * time.Millisecond
	// resend is when a name server that has not answered gets a datagram again.
	resend = time.Second
	// secondThoughts is how long a "no such name" of a later server waits for an
	// earlier one: names of a company's network are known to the first server only.
	secondThoughts = time.Second
	// distrust is how long a name server that did not answer has to do so within headStart: it may be that nobody had
	// an answer to what it was asked.
	distrust = 10 * time.Second
)

// forwarder asks name servers.
type forwarder struct {
	group *supervise.Group
	slots chan struct{}

	mu      sync.Mutex
	flights map[string]*flight
	failed  map[way]time.Time // name servers that did not answer, and when
}

// way is that to a name server. One that does not answer by TCP, as many a firewall has it, may do so by UDP.
type way struct {
	server netip.AddrPort
	via    string
	tcp    bool
}

// flight is one question that is being asked.
type flight struct {
	waiting []waiter
}

// waiter is somebody who wants the answer.
type waiter struct {
	query []byte
	reply func([]byte)
	done  func()
}

func newForwarder(group *supervise.Group) *forwarder {
	return &forwarder{group: group, slots: make(chan struct{}, allForwards), flights: map[string]*flight{}, failed: map[way]time.Time{}}
}

// ask answers a query, that parses and has one question, from the servers.
func (f *forwarder) ask(c *Client, servers []Upstream, query []byte, room int, reply func([]byte)) {
	end := questionEnd(query)
	if end < 0 {
		reply(pack(refusal(query, dns.RcodeFormatError), room))
		return
	}
	overTCP := room > largeUDP
	if len(servers) == 0 || c.busy.Add(1) > clientForwards {
		if len(servers) > 0 {
			c.busy.Add(-1)
		}
		reply(servfail(query))
		return
	}
	w := waiter{query: query, reply: reply, done: func() { c.busy.Add(-1) }}
	key := flightKey(query, end, servers, overTCP)
	if overTCP { // another's is not to wait until this one has read
		key = fmt.Sprintf("%p ", c) + key
	}
	f.mu.Lock()
	if fl := f.flights[key]; fl != nil {
		joined := len(fl.waiting) < sameQuestion
		if joined {
			fl.waiting = append(fl.waiting, w)
		}
		f.mu.Unlock()
		if !joined {
			w.done()
			reply(servfail(query))
		}
		return
	}
	f.flights[key] = &flight{waiting: []waiter{w}}
	f.mu.Unlock()
	if !f.launch(key, servers, query, overTCP) {
		f.land(key, nil)
	}
}

func (f *forwarder) launch(key string, servers []Upstream, query []byte, overTCP bool) bool {
	select {
	case f.slots <- struct{}{}:
	default:
		return false
	}
	ok := f.group.Go("dns-forward", func(ctx context.Context) {
		defer func() { <-f.slots }()
		ctx, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		f.land(key, f.exchange(ctx, servers, query, overTCP))
	})
	if !ok {
		<-f.slots
	}
	return ok
}

// land hands the answer to all who wait for it; nil means that there is none.
func (f *forwarder) land(key string, answer []byte) {
	f.mu.Lock()
	fl := f.flights[key]
	delete(f.flights, key)
	f.mu.Unlock()
	for _, w := range fl.waiting {
		w.reply(addressed(answer, w.query))
		w.done()
	}
}

// flightKey is the same for questions that may share an answer.
func flightKey(query []byte, end int, servers []Upstream, overTCP bool) string {
	var b strings.Builder
	for _, u := range servers {
		fmt.Fprintf(&b, "%s %s\n", u.Via, u.Addr)
	}
	fmt.Fprintf(&b, "%v ", overTCP)
	b.Write(query[2:4]) // flags
	b.Write(lowerName(query[headerLen : end-afterName]))
	b.Write(query[end-afterName:])
	return b.String()
}

// lowerName is a name in wire form, with the letters of ASCII in lower case. A label may hold any bytes, which are no
// characters; the lengths of labels are below the letters.
func lowerName(b []byte) []byte {
	low := bytes.Clone(b)
	for i, c := range low {
		if 'A' <= c && c <= 'Z' {
			low[i] = c - 'A' + 'a'
		}
	}
	return low
}

// afterName is what a question has behind its name: type and class.
const afterName = 4

// asksSame says whether a message has the question of another one, which ends at end.
func asksSame(msg, query []byte, end int) bool {
	name := end - afterName
	return end <= len(msg) && bytes.Equal(msg[name:end], query[name:end]) && bytes.Equal(lowerName(msg[headerLen:name]), lowerName(query[headerLen:name]))
}

// questionEnd is where the question of a message ends, -1 if that is not plain.
func questionEnd(msg []byte) int {
	i := headerLen
	for i < len(msg) {
		n := int(msg[i])
		i++
		switch {
		case n == 0:
			if i+afterName > len(msg) {
				return -1
			}
			return i + afterName
		case n > 63:
			return -1 // a pointer, which has nothing to point to
		}
		i += n
	}
	return -1
}

// addressed makes of an answer that of one query: its id, and the question in the
// letters in which it was put.
func addressed(answer, query []byte) []byte {
	if answer == nil {
		return servfail(query)
	}
	out := append([]byte(nil), answer...)
	copy(out[:2], query[:2])
	if end := questionEnd(query); end > 0 && asksSame(out, query, end) {
		copy(out[headerLen:end], query[headerLen:end])
	}
	return out
}

// servfail answers a query that nobody knows an answer to.
func servfail(query []byte) []byte {
	var q dns.Msg
	if err := q.Unpack(query); err != nil {
		return pack(refusal(query, dns.RcodeServerFailure), plainUDP)
	}
	m := new(dns.Msg).SetRcode(&q, dns.RcodeServerFailure)
	m.RecursionAvailable = true
	return pack(withEDNS(m, &q), plainUDP)
}

// quality says how good an answer is; more is better.
type quality int

const (
	noAnswer quality = iota
	failure          // SERVFAIL, REFUSED …
	negative         // no such name, or nothing of the type
	positive
)

func judge(answer []byte) quality {
	if len(answer) < headerLen {
		return noAnswer
	}
	truncated := answer[2]&2 != 0
	records := binary.BigEndian.Uint16(answer[6:8])
	switch answer[3] & 0xf {
	case dns.RcodeSuccess:
		if records > 0 || truncated {
			return positive
		}
		return negative
	case dns.RcodeNameError:
		return negative
	}
	return failure
}

// race is one question to several servers.
type race struct {
	answers  [][]byte
	quality  []quality
	finished []bool
	started  int
}

// exchange returns the best answer, nil if there is none.
func (f *forwarder) exchange(ctx context.Context, servers []Upstream, query []byte, overTCP bool) []byte {
	type result struct {
		i      int
		answer []byte
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(servers))
	r := &race{answers: make([][]byte, len(servers)), quality: make([]quality, len(servers)), finished: make([]bool, len(servers))}
	start := func() {
		i := r.started
		r.started++
		go func() {
			answer, err := askOne(ctx, servers[i], query, overTCP)
			f.note(servers[i].by(overTCP), err)
			results <- result{i, answer}
		}()
	}
	next := time.NewTimer(headStart)
	defer next.Stop()
	var grace, brief <-chan time.Time
	for {
		// Who is not trusted is not given a head start.
		for r.started == 0 || r.started < len(servers) && r.idle() || r.started < len(servers) && f.distrusted(servers[r.started-1].by(overTCP)) {
			start()
			next.Reset(headStart)
		}
		select {
		case res := <-results:
			r.finished[res.i], r.answers[res.i], r.quality[res.i] = true, res.answer, judge(res.answer)
			if r.quality[res.i] == positive || r.settled(func(int) bool { return false }) {
				return r.best()
			}
			if r.quality[res.i] == negative && grace == nil {
				grace = time.After(secondThoughts)
			}
			if brief == nil && r.settled(func(i int) bool { return f.distrusted(servers[i].by(overTCP)) }) {
				brief = time.After(headStart)
			}
		case <-next.C:
			if r.started < len(servers) {
				start()
				next.Reset(headStart)
			}
		case <-grace:
			return r.best()
		case <-brief:
			return r.best()
		case <-ctx.Done():
			return r.best()
		}
	}
}

// idle says that no server is being asked.
func (r *race) idle() bool { return !slices.Contains(r.finished[:r.started], false) }

// settled says that nothing better is to be expected: a "no such name" counts if nobody before
// is still to answer, except the distrusted.
func (r *race) settled(distrusted func(int) bool) bool {
	for i := range r.answers {
		switch {
		case !r.finished[i]:
			if i >= r.started || !distrusted(i) {
				return false
			}
		case r.quality[i] == negative:
			return true
		}
	}
	return r.idle()
}

// best is the best answer; of equals, that of the server that comes first.
func (r *race) best() []byte {
	at := 0
	for i, q := range r.quality {
		if q > r.quality[at] {
			at = i
		}
	}
	return r.answers[at]
}

func (u Upstream) by(tcp bool) way { return way{u.Addr, u.Via, tcp} }

// note remembers who did not answer. A question that was not waited for says nothing.
func (f *forwarder) note(w way, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		delete(f.failed, w)
	case !errors.Is(err, context.Canceled):
		const most = 1024
		if len(f.failed) >= most {
			clear(f.failed)
		}
		f.failed[w] = time.Now()
	}
}

func (f *forwarder) distrusted(w way) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.failed[w]
	return ok && time.Since(t) < distrust
}

// askOne asks one server, under an id and from a port of this question's own.
func askOne(ctx context.Context, u Upstream, query []byte, overTCP bool) ([]byte, error) {
	network := "udp"
	if overTCP {
		network = "tcp"
	}
	conn, err := u.Dial(ctx, network, u.Addr)
	if err != nil {
		return nil, unlessCancelled(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	own := append([]byte(nil), query...)
	binary.BigEndian.PutUint16(own, dns.Id())
	var answer []byte
	if overTCP {
		answer, err = askTCP(conn, own)
	} else {
		answer, err = askUDP(ctx, conn, own)
	}
	return answer, unlessCancelled(ctx, err)
}

// unlessCancelled tells a server that failed from a question that was given up.
func unlessCancelled(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	return err
}

func askUDP(ctx context.Context, conn net.Conn, query []byte) ([]byte, error) {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		if _, err := conn.Write(query); err != nil {
			return nil, err
		}
		answer, err := awaitUDP(ctx, conn, buf, query)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && ctx.Err() == nil {
			continue
		}
		return answer, err
	}
}

// awaitUDP waits for the answer until it is time to ask again.
func awaitUDP(ctx context.Context, conn net.Conn, buf, query []byte) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(resend)); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // it ended before the deadline was set
		return nil, ctx.Err()
	}
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], query) {
			return append([]byte(nil), buf[:n]...), nil
		}
	}
}

func askTCP(conn net.Conn, query []byte) ([]byte, error) {
	out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query)))
	if _, err := conn.Write(append(out, query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	if !answers(answer, query) {
		return nil, errors.New("the answer is to another question")
	}
	return answer, nil
}

// answers says whether a message is the answer to a query: the same id and question.
// Some servers leave the question out of an error.
func answers(msg, query []byte) bool {
	if len(msg) < headerLen || msg[0] != query[0] || msg[1] != query[1] || msg[2]&0x80 == 0 {
		return false
	}
	if binary.BigEndian.Uint16(msg[4:6]) == 0 {
		return judge(msg) == failure
	}
	return asksSame(msg, query, questionEnd(query))
}

// Probe asks a server for the addresses of a name, or of the root's servers if it is
// empty, and returns how long the answer took. Any answer will do.
func Probe(ctx context.Context, u Upstream, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience/2)
	defer cancel()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	if name == "" {
		m.SetQuestion(".", dns.TypeNS)
	}
	query, err := m.Pack()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	_, err = askOne(ctx, u, query, false)
	return time.Since(start), err
}
