package shop

import (
	"context"
	"encoding/json"
	"log/slog"

	"mainstay/bus"
)

// Mailer writes a mail, or rather a line in its log, for each order that it hears of at the bus's endpoint.
func Mailer(ctx context.Context, log *slog.Logger, endpoint string) error {
	err := bus.Subscribe(ctx, endpoint, []string{"orders."}, func(frames [][]byte) error {
		var order Order
		if err := json.Unmarshal(frames[len(frames)-1], &order); err != nil {
			log.Warn("message not understood", "topic", string(frames[0]), "err", err)
			return nil
		}
		log.Info("mail sent", "order", order.ID, "item", order.Item)
		return nil
	})
	if ctx.Err() != nil {
		log.Info("stopped")
		return nil
	}
	return err
}
