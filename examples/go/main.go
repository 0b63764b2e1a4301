// Serves DiffService over gRPC, gRPC-Web and Connect on one cleartext port, with health and reflection.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"toolplane.example/diff/gen/examples/diff/v1/diffv1connect"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:50052", "host:port; port 0 chooses a free one")
	flag.Parse()

	mux := http.NewServeMux()
	mux.Handle(diffv1connect.NewDiffServiceHandler(diffService{}))
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(diffv1connect.DiffServiceName)))
	reflector := grpcreflect.NewStaticReflector(diffv1connect.DiffServiceName)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	fmt.Printf("listening on http://%s\n", listener.Addr())
	go func() {
		<-stop.Done()
		drained, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		if err := server.Shutdown(drained); err != nil {
			log.Print(err)
		}
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
