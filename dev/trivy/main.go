// Command trivy prints what the built-in checks of Trivy say of one file, as `trivy config` does, without the rest of
// Trivy, which takes half an hour to compile: trivy kubernetes|dockerfile FILE.
package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/aquasecurity/trivy/pkg/iac/rego"
	"github.com/aquasecurity/trivy/pkg/iac/scan"
	"github.com/aquasecurity/trivy/pkg/iac/scanners/dockerfile"
	"github.com/aquasecurity/trivy/pkg/iac/scanners/kubernetes"
	"github.com/aquasecurity/trivy/pkg/iac/scanners/options"
)

type finding struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

func main() {
	opts := []options.ScannerOption{rego.WithEmbeddedPolicies(true), rego.WithEmbeddedLibraries(true)}
	folder, file := filepath.Dir(os.Args[2]), filepath.Base(os.Args[2])
	var results scan.Results
	var err error
	if os.Args[1] == "dockerfile" {
		results, err = dockerfile.NewScanner(opts...).ScanFS(context.Background(), os.DirFS(folder), file)
	} else {
		results, err = kubernetes.NewScanner(opts...).ScanFS(context.Background(), os.DirFS(folder), file)
	}
	if err != nil {
		panic(err)
	}
	found := []finding{}
	for _, result := range results.GetFailed() {
		found = append(found, finding{result.Rule().ID, result.Description()})
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		panic(err)
	}
}
