// Fulcio with a certificate authority in memory, for tests. The command of Fulcio itself opens its metrics on all
// interfaces; this one serves Fulcio's own handlers on one loopback address.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	ctclient "github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/sigstore/fulcio/pkg/ca/ephemeralca"
	"github.com/sigstore/fulcio/pkg/config"
	"github.com/sigstore/fulcio/pkg/generated/protobuf"
	"github.com/sigstore/fulcio/pkg/server"
	v1 "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "address of HTTP")
	grpcAddress := flag.String("grpc-address", "127.0.0.1:0", "address of gRPC, which HTTP is translated to")
	configPath := flag.String("config", "", "Fulcio's configuration: the issuers of tokens")
	ctLog := flag.String("ct-log-url", "", "log of certificates")
	flag.Parse()
	if err := serve(*address, *grpcAddress, *configPath, *ctLog); err != nil {
		log.Fatal(err)
	}
}

func serve(address, grpcAddress, configPath, ctLog string) error {
	settings, err := config.Load(configPath)
	if err != nil {
		return err
	}
	authority, err := ephemeralca.NewEphemeralCA()
	if err != nil {
		return err
	}
	certificates, err := ctclient.New(ctLog, &http.Client{Timeout: 30 * time.Second}, jsonclient.Options{})
	if err != nil {
		return err
	}
	curves := []v1.PublicKeyDetails{v1.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256}
	algorithms, err := signature.NewAlgorithmRegistryConfig(curves)
	if err != nil {
		return err
	}
	withSettings := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(config.With(ctx, settings), request)
	}
	fulcio := server.NewGRPCCAServer(certificates, authority, algorithms, server.NewIssuerPool(settings))
	backend := grpc.NewServer(grpc.UnaryInterceptor(withSettings))
	protobuf.RegisterCAServer(backend, fulcio)
	listener, err := net.Listen("tcp", grpcAddress)
	if err != nil {
		return err
	}
	go func() { log.Fatal(backend.Serve(listener)) }()
	token := func(_ context.Context, request *http.Request) metadata.MD {
		bearer := strings.TrimPrefix(request.Header.Get("Authorization"), "Bearer ")
		return metadata.Pairs(server.MetadataOIDCTokenKey, bearer)
	}
	mux := runtime.NewServeMux(runtime.WithMetadata(token))
	plain := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if err := protobuf.RegisterCAHandlerFromEndpoint(context.Background(), mux, listener.Addr().String(), plain); err != nil {
		return err
	}
	front := http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return front.ListenAndServe()
}
