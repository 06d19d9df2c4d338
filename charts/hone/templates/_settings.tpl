{{- /* Written by `python -m hone_dev.chart.generate` from hone_operator.settings and dev/hone_dev/chart/values.py. */ -}}
{{- /* The values that the operator reads as they are. */ -}}
{{- define "hone.settings" -}}
{{ toYaml (pick .Values "watchNamespaces" "trainer" "staging" "datasets" "encoding" "huggingFace" "caBundle" "store" "progress" "limits" "clusterDomain" "resyncSeconds" "concurrency" "log" "tenants" "signing" "kueue" "leaderElection" "podLimits" "podSecurity" "privacy") }}
{{- end }}
{{- /* Keys of labels and annotations that belong to Kubernetes, Kueue and Hone. */ -}}
{{- define "hone.isReservedKey" -}}
{{- if and (regexMatch `^((([^/]*\.)?(kubernetes\.io|k8s\.io|x-k8s\.io|hone\.dev)/.*)|job-name|controller-uid)$` .) (not (hasPrefix "cluster-autoscaler.kubernetes.io/" .)) }}true{{ end }}
{{- end }}
{{- /* Environment variables that Hone itself sets. */ -}}
{{- define "hone.isReservedEnv" -}}
{{- if regexMatch `^(HF_ENDPOINT|HOME|LD_LIBRARY_PATH|LD_PRELOAD|PATH|PYTHONPATH|USER|KUBEFLOW_TRAINER_.*|HONE_.*|KUBERNETES_.*)$` . }}true{{ end }}
{{- end }}
