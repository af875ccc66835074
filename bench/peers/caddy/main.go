// Command caddy is Caddy with its standard modules, as its own cmd/caddy is, built from the module proxy to be measured beside Mainstay.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
