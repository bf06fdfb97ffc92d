// Publishes events that streamhand workers read, by go-redis: now, once, later, and to a partitioned topic.
//
// Copy what you need. What an entry must have, and why, is in docs/wire.md; conformance/ has what to try this by:
//
//	go run go_redis.go redis://127.0.0.1:6379 orders     publishes four events to a stream or a topic
//	go run go_redis.go check conformance                 compares this file with the vectors in that folder
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Scripts as streamhand loads them; ship them beside your program, or embed them.
const scripts = "conformance/scripts"

type Publisher struct {
	redis   *redis.Client
	source  string
	layouts map[string][2]uint64
}

// Event is what happened. Again with the same ID it is a copy of it.
type Event struct {
	Type, ID, Subject string
	Data              any
}

// Publish adds an event.
func (p *Publisher) Publish(ctx context.Context, stream string, event Event) error {
	stream, fields, err := p.made(ctx, stream, &event)
	if err != nil {
		return err
	}
	return p.redis.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: fields}).Err()
}

// PublishOnce adds an event unless one of this id, type and source was added so within the window. It returns whether it is new.
func (p *Publisher) PublishOnce(ctx context.Context, stream string, event Event, window time.Duration) (bool, error) {
	stream, fields, err := p.made(ctx, stream, &event)
	if err != nil {
		return false, err
	}
	hash, err := says(fields[9].(string), 1)
	if err != nil {
		return false, err
	}
	mark := tagged(stream) + ":published:" + which(p.source, event.ID, event.Type)
	args := append([]any{window.Milliseconds(), hash, 0}, fields...)
	answer, err := p.run(ctx, "publish_once", []string{stream, mark, tagged(stream) + ":never"}, args)
	if err != nil {
		return false, err
	}
	if answer[2] == int64(1) {
		return false, fmt.Errorf("the event %s was published before with other data", event.ID)
	}
	return answer[1] == int64(1), nil
}

// PublishLater adds an event so much later, by the clock of Redis.
func (p *Publisher) PublishLater(ctx context.Context, stream string, event Event, delay time.Duration) error {
	stream, fields, err := p.made(ctx, stream, &event)
	if err != nil {
		return err
	}
	tag := tagged(stream)
	keys := []string{stream, tag + ":scheduled", tag + ":scheduled:events", tag + ":never"}
	args := append([]any{event.ID, which(p.source, event.ID, event.Type), "", delay.Milliseconds(), 0}, fields...)
	_, err = p.run(ctx, "schedule", keys, args)
	return err
}

func (p *Publisher) run(ctx context.Context, name string, keys []string, args []any) ([]any, error) {
	text, err := os.ReadFile(filepath.Join(scripts, name+".lua"))
	if err != nil {
		return nil, err
	}
	return redis.NewScript(string(text)).Run(ctx, p.redis, keys, args...).Slice()
}

// The stream the event goes to, and its fields, names and values in turn.
func (p *Publisher) made(ctx context.Context, stream string, event *Event) (string, []any, error) {
	if event.ID == "" {
		event.ID = newID()
	}
	data, err := json.Marshal(event.Data)
	if err != nil {
		return "", nil, err
	}
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00")
	fields := []any{"type", event.Type, "id", event.ID, "source", p.source, "time", now, "data", string(data)}
	address := event.ID
	if event.Subject != "" {
		fields = append(fields, "subject", event.Subject)
		address = event.Subject
	}
	stream, err = p.streamOf(ctx, stream, address)
	return stream, fields, err
}

// The stream itself, or that of the event's partition.
func (p *Publisher) streamOf(ctx context.Context, stream, address string) (string, error) {
	layout, known := p.layouts[stream]
	if !known {
		fields, err := p.redis.HGetAll(ctx, "{"+stream+"}:partitions").Result()
		if err != nil {
			return "", err
		}
		for field, many := range fields {
			// Fields that are no numbers say other things.
			generation, err := strconv.ParseUint(field, 10, 32)
			if err == nil && generation > layout[0] {
				partitions, err := strconv.ParseUint(many, 10, 32)
				if err != nil {
					return "", err
				}
				layout = [2]uint64{generation, partitions}
			}
		}
		p.layouts[stream] = layout
	}
	switch generation, partitions := layout[0], layout[1]; generation {
	case 0:
		return stream, nil
	case 1:
		return fmt.Sprintf("{%s:%d}", stream, fnv1a64(address)%partitions), nil
	default:
		return fmt.Sprintf("{%s:%d.%d}", stream, generation, fnv1a64(address)%partitions), nil
	}
}

func fnv1a64(text string) uint64 {
	hash := fnv.New64a()
	hash.Write([]byte(text))
	return hash.Sum64()
}

func tagged(stream string) string {
	if strings.Contains(stream, "{") {
		return stream
	}
	return "{" + stream + "}"
}

func newID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Which event it is, as streamhand has it.
func which(source, id, kind string) string {
	var name []byte
	for _, part := range []string{source, id, kind} {
		name = put(name, 's', []byte(part))
	}
	hash := uuid5(name)
	return hex.EncodeToString(hash[:])
}

// A hash of what JSON says.
func says(data string, version uint32) (string, error) {
	decoder := json.NewDecoder(strings.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "", err
	}
	hash := uuid5(said(binary.BigEndian.AppendUint32(nil, version), value))
	return hex.EncodeToString(append(hash[:6:6], hash[10:12]...)), nil
}

func said(out []byte, value any) []byte {
	switch value := value.(type) {
	case nil:
		return append(out, 'n')
	case bool:
		if value {
			return append(out, 't')
		}
		return append(out, 'f')
	case string:
		return put(out, 's', []byte(value))
	case json.Number:
		var number [16]byte
		if whole, err := strconv.ParseUint(value.String(), 10, 64); err == nil {
			binary.BigEndian.PutUint64(number[8:], whole)
			return put(out, 'i', number[:])
		}
		if whole, err := strconv.ParseInt(value.String(), 10, 64); err == nil {
			binary.BigEndian.PutUint64(number[:8], math.MaxUint64)
			binary.BigEndian.PutUint64(number[8:], uint64(whole))
			return put(out, 'i', number[:])
		}
		float, _ := value.Float64()
		return put(out, 'd', binary.BigEndian.AppendUint64(nil, math.Float64bits(float)))
	case []any:
		out = append(out, '[')
		for _, item := range value {
			out = said(out, item)
		}
		return append(out, ']')
	}
	var members [][]byte
	for name, member := range value.(map[string]any) {
		members = append(members, said(said(nil, name), member))
	}
	sort.Slice(members, func(a, b int) bool { return bytes.Compare(members[a], members[b]) < 0 })
	return append(append(append(out, '{'), bytes.Join(members, nil)...), '}')
}

func put(out []byte, kind byte, text []byte) []byte {
	return append(binary.BigEndian.AppendUint64(append(out, kind), uint64(len(text))), text...)
}

func uuid5(name []byte) [16]byte {
	namespace, _ := hex.DecodeString("0811d2b09371559caed3d939036012fc")
	var id [16]byte
	hash := sha1.Sum(append(namespace, name...))
	copy(id[:], hash[:])
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return id
}

// Compares this with the vectors that streamhand publishes.
func check(folder string) error {
	var partition struct{ Hashes []struct{ Address, Fnv1a64 string } }
	if err := read(filepath.Join(folder, "partition.json"), &partition); err != nil {
		return err
	}
	for _, hash := range partition.Hashes {
		if fmt.Sprintf("%016x", fnv1a64(hash.Address)) != hash.Fnv1a64 {
			return fmt.Errorf("the hash of %q", hash.Address)
		}
	}
	var identity struct {
		Events []struct {
			Fields      [][2]any
			Which, Says string
		}
	}
	if err := read(filepath.Join(folder, "identity.json"), &identity); err != nil {
		return err
	}
	for _, event := range identity.Events {
		fields := map[string]string{"schemaversion": "1"}
		for _, field := range event.Fields {
			text, _ := field[1].(string)
			fields[field[0].(string)] = text
		}
		if which(fields["source"], fields["id"], fields["type"]) != event.Which {
			return fmt.Errorf("the identity of %v", fields)
		}
		version, _ := strconv.ParseUint(fields["schemaversion"], 10, 32)
		// MessagePack, and what is no JSON, this does not publish.
		if hash, err := says(fields["data"], uint32(version)); err == nil && hash != event.Says {
			return fmt.Errorf("the hash of %v", fields)
		}
	}
	return nil
}

func read(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func publish(url, stream string) error {
	options, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	ctx := context.Background()
	publisher := Publisher{redis: redis.NewClient(options), source: "shop", layouts: map[string][2]uint64{}}
	order := func(id string) map[string]any { return map[string]any{"order_id": id, "amount": 3} }
	created := func(id string) Event {
		return Event{Type: "order.created", ID: id + "-created", Subject: "order:" + id, Data: order(id)}
	}
	if err := publisher.Publish(ctx, stream, created("o-1")); err != nil {
		return err
	}
	for range [2]int{} {
		if _, err := publisher.PublishOnce(ctx, stream, created("o-2"), 24*time.Hour); err != nil {
			return err
		}
	}
	if err := publisher.PublishLater(ctx, stream, created("o-3"), 500*time.Millisecond); err != nil {
		return err
	}
	return publisher.Publish(ctx, stream, Event{Type: "order.created", Data: order("o-4: créée")})
}

func main() {
	var err error
	if os.Args[1] == "check" {
		err = check(os.Args[2])
	} else {
		err = publish(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
