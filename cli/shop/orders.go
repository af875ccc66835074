package shop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mainstay/bus"
)

// An Order is one that was placed.
type Order struct {
	ID   int       `json:"id"`
	Time time.Time `json:"time"`
	Item string    `json:"item"`
}

// Orders serves /orders at address: a POST with the form value item places one, a GET lists all. They are kept
// in a file in dir, of which it must be the only writer. Each is published as orders.created at the
// bus's endpoint; an empty one means that nobody is told.
func Orders(ctx context.Context, log *slog.Logger, address, dir, endpoint string) error {
	book, err := openBook(filepath.Join(dir, "orders.ndjson"))
	if err != nil {
		return err
	}
	defer book.file.Close()

	news := make(chan Order, 1000)
	var telling sync.WaitGroup
	defer telling.Wait()
	told, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if endpoint != "" {
		telling.Go(func() { tell(told, log, endpoint, news) })
	}
	defer close(news) // what has been ordered is told before the end, for a while
	defer time.AfterFunc(time.Second, stop)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthy)
	mux.HandleFunc("GET /readyz", healthy)
	mux.HandleFunc("GET /orders", book.list)
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		item := http.MaxBytesReader(w, r.Body, 4<<10)
		r.Body = item
		name := r.FormValue("item")
		if name == "" || len(name) > 200 {
			http.Error(w, "item: say what to order, in at most 200 bytes: curl -d item=tea URL", http.StatusBadRequest)
			return
		}
		order, err := book.add(name)
		if err != nil {
			log.Error("order lost", "err", err)
			http.Error(w, "the order could not be kept; try again", http.StatusInternalServerError)
			return
		}
		log.Info("order kept", "id", order.ID, "item", order.Item)
		if endpoint != "" {
			select {
			case news <- order:
			default: // the bus has been away for long; the order itself is safe
				log.Warn("order not published: too many wait", "id", order.ID)
			}
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d: %s\n", order.ID, order.Item)
	})
	return serve(ctx, log, address, mux)
}

// A book keeps orders in a file, one a line.
type book struct {
	mu   sync.Mutex // guards the fields below
	file *os.File
	last int // id
}

func openBook(path string) (*book, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	orders, err := readOrders(path)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	b := &book{file: file}
	if len(orders) > 0 {
		b.last = orders[len(orders)-1].ID
	}
	return b, nil
}

// add keeps an order. It is on the disk when add returns.
func (b *book) add(item string) (Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	order := Order{ID: b.last + 1, Time: time.Now().UTC(), Item: item}
	line, err := json.Marshal(order)
	if err != nil {
		return order, err
	}
	if _, err := b.file.Write(append(line, '\n')); err != nil {
		return order, err
	}
	b.last = order.ID
	return order, b.file.Sync()
}

func (b *book) list(w http.ResponseWriter, _ *http.Request) {
	orders, err := readOrders(b.file.Name())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, o := range orders {
		fmt.Fprintf(w, "%d  %s  %s\n", o.ID, o.Time.Format(time.DateTime), o.Item)
	}
}

func readOrders(path string) ([]Order, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var orders []Order
	lines := json.NewDecoder(bufio.NewReader(file))
	for {
		var o Order
		err := lines.Decode(&o)
		if errors.Is(err, io.EOF) {
			return orders, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		orders = append(orders, o)
	}
}

// tell publishes each order until news is closed or ctx is done. When the connection is lost it makes another.
func tell(ctx context.Context, log *slog.Logger, endpoint string, news <-chan Order) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	var latest [][]byte // not known to have been written yet
	for {
		repeat := latest
		err := bus.Publish(ctx, endpoint, func() ([][]byte, error) {
			if repeat != nil {
				repeat = nil
				return latest, nil
			}
			latest = nil
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case order, open := <-news:
				if !open {
					return nil, nil
				}
				body, err := json.Marshal(order)
				latest = [][]byte{[]byte("orders.created"), body}
				return latest, err
			}
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		log.Warn("bus lost", "endpoint", endpoint, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}
