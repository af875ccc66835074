// Command grpchealth is a gRPC server with the health service of google.golang.org/grpc, at HOST:PORT.
//
// It says SERVING of itself as a whole and NOT_SERVING of the service "sick". SIGUSR1 turns what it says of itself, each time.
// With the argument "bare" it has no health service.
package main

import (
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	l, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	if len(os.Args) < 2 || os.Args[1] != "bare" {
		h := health.NewServer()
		h.SetServingStatus("sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		grpc_health_v1.RegisterHealthServer(server, h)
		turns := make(chan os.Signal, 1)
		signal.Notify(turns, syscall.SIGUSR1)
		go func() {
			for serving := false; ; serving = !serving {
				<-turns
				status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
				if serving {
					status = grpc_health_v1.HealthCheckResponse_SERVING
				}
				h.SetServingStatus("", status)
			}
		}()
	}
	log.Printf("serving at %s", l.Addr())
	log.Fatal(server.Serve(l))
}
