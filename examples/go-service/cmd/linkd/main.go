// Command linkd shortens links. It listens on loopback unless told otherwise, says where on its
// first line of output, and ends on SIGTERM when the requests under way are answered.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"example.org/linkd/internal/links"
	"example.org/linkd/internal/web"
)

var version = "unknown" // set by the linker

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address and port; port 0 takes a free one")
	limit := flag.Int("limit", 100000, "links that are kept at most")
	showVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *showVersion {
		fmt.Println(version)
		return
	}
	if err := serve(*listen, *limit); err != nil {
		log.Fatal(err)
	}
}

func serve(address string, limit int) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           web.Handler(links.NewStore(limit), version),
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Println("http://" + listener.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err = <-failed:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(ending)
}
