// Versity's S3 gateway over a folder. The command of versitygw itself also holds the libraries of Azure, ScoutFS and of
// its own tests: more packages to compile than the server has.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// What the command has as defaults.
const (
	connections = 250_000
	requests    = 100_000
	concurrency = 5_000
	parts       = 10_000
)

func main() {
	address := flag.String("address", "", "host:port to listen on")
	root := flag.String("root", "", "folder whose folders are buckets")
	attributes := flag.String("attributes", "", "folder for what a file system keeps in extended attributes")
	flag.Parse()
	if err := serve(*address, *root, *attributes); err != nil {
		log.Fatal(err)
	}
}

func serve(address, root, attributes string) error {
	side, err := meta.NewSideCar(attributes)
	if err != nil {
		return err
	}
	backend, err := posix.New(root, side, posix.PosixOpts{SideCarDir: attributes, Concurrency: concurrency})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess:      os.Getenv("ROOT_ACCESS_KEY"),
		RootUserSecret:      os.Getenv("ROOT_SECRET_KEY"),
		Ports:               []string{address},
		MaxConnections:      connections,
		MaxRequests:         requests,
		AdminMaxConnections: connections,
		AdminMaxRequests:    requests,
		MultipartMaxParts:   parts,
	})
}
