{{/* Names of the chart's objects begin with it. */}}
{{- define "toolgate.fullname" -}}
{{- if contains "toolgate" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-toolgate" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The operator's ServiceAccount. */}}
{{- define "toolgate.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (printf "%s-operator" (include "toolgate.fullname" .)) -}}
{{- end -}}

{{/* The operator's user name, as the API server knows it. */}}
{{- define "toolgate.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "toolgate.serviceAccount" . }}
{{- end -}}

{{/*
Name of an object of the whole cluster: (list . SUFFIX). It names the release and its namespace, so that two releases
never fight for one object.
*/}}
{{- define "toolgate.clusterName" -}}
{{- $ := index . 0 -}}
{{- printf "%s-%s.%s" (include "toolgate.fullname" $) (index . 1) $.Release.Namespace -}}
{{- end -}}

{{- define "toolgate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the operator's pods. Immutable in a Deployment: never add to it. */}}
{{- define "toolgate.selector" -}}
app.kubernetes.io/name: toolgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object of the chart. `managed-by` is Helm: `toolgate` marks what the operator made. */}}
{{- define "toolgate.labels" -}}
{{ include "toolgate.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: toolgate
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The namespaces of `watchNamespaces`, as a namespaceSelector; every namespace where none is named. */}}
{{- define "toolgate.namespaceSelector" -}}
{{- with .Values.watchNamespaces -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: {{ toJson . }}
{{- else -}}
namespaceSelector: {}
{{- end -}}
{{- end -}}
