package main

import (
	"context"
	"flag"
	"os"
	"time"

	commitclient "github.com/argoproj/argo-cd/v3/commitserver/apiclient"
	"github.com/argoproj/argo-cd/v3/common"
	appcontroller "github.com/argoproj/argo-cd/v3/controller"
	"github.com/argoproj/argo-cd/v3/controller/sharding"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	appclientset "github.com/argoproj/argo-cd/v3/pkg/client/clientset/versioned"
	"github.com/argoproj/argo-cd/v3/pkg/ratelimiter"
	"github.com/argoproj/argo-cd/v3/reposerver/apiclient"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	cacheutil "github.com/argoproj/argo-cd/v3/util/cache"
	appstatecache "github.com/argoproj/argo-cd/v3/util/cache/appstate"
	kubeutil "github.com/argoproj/argo-cd/v3/util/kube"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/redis/go-redis/v9"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// controller runs Argo CD's application controller with the defaults of its command, except that its metrics are on
// loopback, which the command does not offer, it heals without a pause that grows, and it keeps the health of each
// object in the Application.
func controller() error {
	flags := flag.NewFlagSet("controller", flag.ExitOnError) // the other one has flags of libraries
	kubeconfig := flags.String("kubeconfig", "", "of the cluster that has the Applications")
	namespace := flags.String("namespace", "argocd", "of the Applications")
	repoServer := flags.String("repo-server", "", "host and port of the repo server")
	redisAddress := flags.String("redis", "", "host and port of Redis")
	metrics := flags.String("metrics-address", "127.0.0.1:0", "host and port of metrics and health")
	serverSideDiff := flags.Bool("server-side-diff-enabled", false, "compare by a dry run of server-side apply")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	if err := v1alpha1.SetK8SConfigDefaults(config); err != nil {
		return err
	}
	ctx := context.Background()
	client := kubernetes.NewForConfigOrDie(config)
	store := cacheutil.NewRedisCache(redis.NewClient(&redis.Options{Addr: *redisAddress}), 24*time.Hour, cacheutil.RedisCompressionGZip)
	cache := appstatecache.NewCache(cacheutil.NewCache(cacheutil.NewTwoLevelClient(store, 10*time.Minute)), time.Hour)
	var made *appcontroller.ApplicationController
	manager := settings.NewSettingsManager(ctx, client, *namespace, settings.WithRepoOrClusterChangedHandler(func() {
		made.InvalidateProjectsCache()
	}))
	shards, err := sharding.GetClusterSharding(client, manager, common.DefaultShardingAlgorithm, false)
	if err != nil {
		return err
	}
	limits := ratelimiter.GetDefaultAppRateLimiterConfig()
	made, err = appcontroller.NewApplicationController(
		*namespace,
		manager,
		client,
		appclientset.NewForConfigOrDie(config),
		apiclient.NewRepoServerClientset(*repoServer, 60, apiclient.TLSConfiguration{DisableTLS: true}),
		commitclient.NewCommitServerClientset(common.DefaultCommitServerAddr),
		cache,
		kubeutil.NewKubectl(),
		2*time.Minute, // between comparisons that nothing asks for
		0,             // hard refreshes only when they are asked for
		0,
		0,
		&wait.Backoff{Duration: time.Second, Factor: 1, Cap: time.Second}, // between attempts to heal
		time.Second,
		0, // a sync may take as long as it takes
		0,
		0,
		0,
		nil,
		nil,
		nil,
		20, // programs at a time
		true,
		shards,
		nil,
		limits,
		*serverSideDiff,
		false,
		normalizers.IgnoreNormalizerOpts{},
		nil,
		false,
	)
	if err != nil {
		return err
	}
	made.GetMetricsServer().Addr = *metrics
	made.Run(ctx, 4, 4)
	return nil
}
