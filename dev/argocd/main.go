// Command argocd holds the parts of Argo CD that sync Applications, and what they need, in one binary, and runs the one
// whose name it is called by: upstream's code, unchanged, at the versions in go.mod.
package main

import (
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"

	"github.com/alicebob/miniredis/v2"
	applicationset "github.com/argoproj/argo-cd/v3/cmd/argocd-applicationset-controller/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"sigs.k8s.io/kustomize/kustomize/v5/commands"
)

var programs = map[string]func() error{
	"argocd-application-controller":    controller,
	"argocd-applicationset-controller": func() error { return applicationset.NewCommand().Execute() },
	"argocd-repo-server":               func() error { return reposerver.NewCommand().Execute() },
	"kustomize":                        func() error { return commands.NewDefaultCommand().Execute() },
	"redis":                            redisServer,
	"git-server":                       gitServer,
}

func main() {
	run, known := programs[filepath.Base(os.Args[0])]
	if !known {
		log.Fatalf("call this as one of %v", programs)
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// redisServer serves a Redis in memory.
func redisServer() error {
	address := flag.String("address", "127.0.0.1:0", "host and port to listen on")
	flag.Parse()
	if err := miniredis.NewMiniRedis().StartAddr(*address); err != nil {
		return err
	}
	select {}
}

// gitServer serves the Git repositories below a folder by `git http-backend`.
func gitServer() error {
	address := flag.String("address", "127.0.0.1:0", "host and port to listen on")
	root := flag.String("root", "", "folder of the repositories")
	backend := flag.String("backend", "/usr/lib/git-core/git-http-backend", "the program of Git that answers requests")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	return http.Serve(listener, &cgi.Handler{
		Path: *backend,
		Env:  []string{"GIT_PROJECT_ROOT=" + *root, "GIT_HTTP_EXPORT_ALL=1"},
	})
}
