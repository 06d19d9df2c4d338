{{- define "hone.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hone.fullname" -}}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $name := include "hone.name" . }}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $full) }}
{{- fail (printf "%s: the name of a Service begins with a letter and has no dot, so choose another name for the release, or set fullnameOverride" $full) }}
{{- end }}
{{- $full | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "hone.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "hone.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hone.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "hone.labels" -}}
{{ include "hone.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* With those of one kind of object, which win over commonLabels: a key that stands twice is no YAML for Flux and kustomize. */}}
{{- define "hone.labelsWith" -}}
{{ mergeOverwrite (include "hone.labels" (index . 0) | fromYaml) (index . 1) | toYaml }}
{{- end }}

{{- define "hone.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "hone.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create=false needs serviceAccount.name" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "hone.tlsSecret" -}}
{{ include "hone.fullname" . }}-operator-tls
{{- end }}

{{- define "hone.image" -}}
{{- $image := index . 0 }}{{ $root := index . 1 }}
{{- if $image.digest -}}
{{ include "hone.repository" . }}@{{ $image.digest }}
{{- else -}}
{{ include "hone.repository" . }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{- /* The repository of an image, in global.imageRegistry if that is set. A first part with "." or ":" is a registry. */ -}}
{{- define "hone.repository" -}}
{{- $parts := splitList "/" (index . 0).repository }}
{{- with ((index . 1).Values.global).imageRegistry }}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) }}{{ $parts = rest $parts }}{{ end }}
{{- $parts = prepend $parts . }}
{{- end }}
{{- if or (eq (last $parts) "") (eq (len $parts) 1) (not (regexMatch "[.:]|^localhost$" (first $parts))) }}
{{- fail (printf "The image %q names no registry: build and push those of Hone (docs/guides/install.md#1-build-the-images), and set global.imageRegistry to your registry, or write image.repository, trainer.image.repository and, if you use them, those of trainer.vllmImage and trainer.servingImage in full, e.g. registry.example.internal/hone/operator, or docker.io/NAME/operator for Docker Hub and for images that are loaded into the nodes" (index . 0).repository) }}
{{- end }}
{{- join "/" $parts }}
{{- end }}

{{- /* Names of pull secrets as a JSON list; each is written as a name or as {name: NAME}. */ -}}
{{- define "hone.secretNames" -}}
{{- $names := list }}
{{- range . }}
{{- if kindIs "string" . }}{{ $names = append $names . }}{{ else }}{{ $names = append $names .name }}{{ end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{- define "hone.pullSecrets" -}}
{{- range fromJsonArray (include "hone.secretNames" .) }}
- name: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Environment variables as a JSON map; written as {NAME: value}, or as a list of {name, value}. (list VALUE NAME-OF-THE-VALUE) */ -}}
{{- define "hone.envMap" -}}
{{- $env := index . 0 }}{{ $path := index . 1 }}
{{- if kindIs "map" $env }}{{ toJson $env }}{{ else }}
{{- $map := dict }}
{{- range $env }}
{{- if omit . "name" "value" }}
{{- fail (printf "%s: %s has %s; only a name and a value are taken here. For a value from a Secret, use spec.pod.env of the job" $path .name (omit . "name" "value" | keys | sortAlpha | join ", ")) }}
{{- end }}
{{- $_ := set $map .name (default "" .value) }}
{{- end }}
{{- toJson $map }}
{{- end }}
{{- end }}

{{- /* Environment variables as a container has them; written as {NAME: value}, or as that list. */ -}}
{{- define "hone.envList" -}}
{{- if kindIs "map" . }}
{{- range $name, $value := . }}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- else }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* "true" where an object of the Prometheus operator is to be rendered. */ -}}
{{- define "hone.renderMonitoring" -}}
{{- $there := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- $mode := .Values.metrics.renderMode }}
{{- if and (eq $mode "failIfMissing") (not $there) }}
{{- fail "metrics.renderMode is failIfMissing, and the kinds of monitoring.coreos.com/v1 are not installed" }}
{{- end }}
{{- if or $there (eq $mode "alwaysRender") }}true{{ end }}
{{- end }}

{{- /* The name of its rights, which are not in its own namespace. */ -}}
{{- define "hone.clusterName" -}}
{{ include "hone.namespace" . }}-{{ include "hone.fullname" . }}
{{- end }}

{{- /* The ClusterRole that holds what the operator needs in a namespace with jobs, and its bindings. */ -}}
{{- define "hone.namespaceRole" -}}
{{ include "hone.clusterName" . }}-namespace
{{- end }}

{{- /* "true" where namespaces opt in: by the label hone.dev/enabled, or by the value `namespaces`. */ -}}
{{- define "hone.optIn" -}}
{{- if .Values.watchNamespaces }}
{{- if or .Values.namespaces .Values.allNamespaces }}
{{- fail "watchNamespaces gives the operator Roles in those namespaces and nothing else: remove namespaces and allNamespaces" }}
{{- end }}
{{- else if .Values.allNamespaces }}
{{- if .Values.namespaces }}
{{- fail "allNamespaces covers every namespace: remove namespaces, or allNamespaces" }}
{{- end }}
{{- else if not .Values.rbac.create }}
{{- else }}true{{ end }}
{{- end }}
