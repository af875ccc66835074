package shop

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
)

// Web serves the shop's page at address. It says who has answered, which is instance, and what that one says.
func Web(ctx context.Context, log *slog.Logger, address, instance, greeting string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthy)
	mux.HandleFunc("GET /readyz", healthy)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			fmt.Fprintf(w, "%s says %s\n", instance, greeting)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		page.Execute(w, struct{ Instance, Greeting string }{instance, greeting})
	})
	return serve(ctx, log, address, mux)
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The tea shop</title>
<style>
  body { font: 18px/1.5 system-ui, sans-serif; max-width: 32rem; margin: 4rem auto; padding: 0 1rem; }
  input, button { font: inherit; padding: .2em .6em; }
  code { background: #8882; padding: .1em .3em; }
</style>
<h1>The tea shop</h1>
<p>This page comes from <code>{{.Instance}}</code>, which says {{.Greeting}}. Load it again: another replica answers.</p>
<form method="post" action="/orders">
  <input name="item" value="tea" aria-label="what to order" required maxlength="200">
  <button>Order</button>
</form>
<p><a href="/orders">All orders</a></p>
</html>
`))
