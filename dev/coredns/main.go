// CoreDNS with the plugins that the cluster and the tests name. The command of CoreDNS itself holds all of them, with the
// libraries of three clouds: minutes to compile. Its client is that of Kubernetes here, which is compiled already.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
)

// In the order of CoreDNS's plugin.cfg: a query passes them one after the other.
func main() {
	dnsserver.Directives = []string{"bind", "errors", "log", "cache", "hosts", "kubernetes", "forward"}
	coremain.Run()
}
