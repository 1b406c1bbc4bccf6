// A plain Go service for the comparison: what one writes with Eclipse Paho and pgx, done well.
//
// It takes readings over MQTT 5, stores batches of them in PostgreSQL, each reading once, and acknowledges
// after the commit. Without a database it only receives and acknowledges.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"os/signal"
	"syscall"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/jackc/pgx/v5"
)

type reading struct {
	SensorID  string    `json:"sensor_id"`
	Type      string    `json:"type"`
	Value     float64   `json:"value"`
	Unit      string    `json:"unit"`
	Location  string    `json:"location"`
	Timestamp time.Time `json:"timestamp"`
	Battery   *int16    `json:"battery_percent"`
	Quality   *string   `json:"quality"`
}

const schema = `CREATE TABLE IF NOT EXISTS peer_readings (
	sensor_id text, type text, ts timestamptz, value double precision, unit text, location text,
	battery smallint, quality text, PRIMARY KEY (sensor_id, type, ts))`

const insert = `INSERT INTO peer_readings
	SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::float8[], $5::text[], $6::text[], $7::int2[], $8::text[])
	ON CONFLICT DO NOTHING`

func main() {
	broker := flag.String("broker", "127.0.0.1:1883", "address of the broker")
	database := flag.String("database", "", "URL of PostgreSQL; only receives without one")
	window := flag.Uint("window", 10_000, "unacknowledged readings at most")
	batch := flag.Int("batch", 2_000, "readings a transaction at most")
	linger := flag.Duration("linger", 5*time.Millisecond, "longest wait for more of them")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var db *pgx.Conn
	if *database != "" {
		var err error
		if db, err = pgx.Connect(ctx, *database); err != nil {
			log.Fatalf("cannot connect to %s: %v", *database, err)
		}
		if _, err = db.Exec(ctx, schema); err != nil {
			log.Fatalf("cannot make the table: %v", err)
		}
	}
	conn, err := net.Dial("tcp", *broker)
	if err != nil {
		log.Fatalf("cannot reach the broker: %v", err)
	}
	arrived := make(chan *paho.Publish, *window)
	client := paho.NewClient(paho.ClientConfig{
		Conn:                       conn,
		EnableManualAcknowledgment: db != nil,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(received paho.PublishReceived) (bool, error) {
				if db != nil {
					arrived <- received.Packet
				}
				return true, nil
			},
		},
	})
	maximum := uint16(*window)
	connect := &paho.Connect{ClientID: "paho-peer", KeepAlive: 30, CleanStart: true,
		Properties: &paho.ConnectProperties{ReceiveMaximum: &maximum}}
	if _, err = client.Connect(ctx, connect); err != nil {
		log.Fatalf("the broker refused: %v", err)
	}
	subscribe := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "sensors/#", QoS: 1}}}
	if _, err = client.Subscribe(ctx, subscribe); err != nil {
		log.Fatalf("the subscription was refused: %v", err)
	}
	if db == nil {
		<-ctx.Done()
		return
	}
	for {
		packets := collect(ctx, arrived, *batch, *linger)
		if packets == nil {
			return
		}
		if err := store(ctx, db, packets); err != nil {
			log.Fatalf("cannot store: %v", err)
		}
		for _, packet := range packets {
			if err := client.Ack(packet); err != nil {
				log.Fatalf("cannot acknowledge: %v", err)
			}
		}
	}
}

// collect waits for a first message, and a moment for more of them.
func collect(ctx context.Context, arrived <-chan *paho.Publish, most int, linger time.Duration) []*paho.Publish {
	var packets []*paho.Publish
	var late <-chan time.Time
	for len(packets) < most {
		select {
		case packet := <-arrived:
			if packets == nil {
				late = time.After(linger)
			}
			packets = append(packets, packet)
		case <-late:
			return packets
		case <-ctx.Done():
			return nil
		}
	}
	return packets
}

func store(ctx context.Context, db *pgx.Conn, packets []*paho.Publish) error {
	n := len(packets)
	ids, types, units, locations := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	times, values := make([]time.Time, n), make([]float64, n)
	batteries, qualities := make([]*int16, n), make([]*string, n)
	for i, packet := range packets {
		var r reading
		if err := json.Unmarshal(packet.Payload, &r); err != nil {
			return err
		}
		ids[i], types[i], times[i], values[i] = r.SensorID, r.Type, r.Timestamp, r.Value
		units[i], locations[i], batteries[i], qualities[i] = r.Unit, r.Location, r.Battery, r.Quality
	}
	_, err := db.Exec(ctx, insert, ids, types, times, values, units, locations, batteries, qualities)
	return err
}
