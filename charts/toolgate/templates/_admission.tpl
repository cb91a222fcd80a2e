{{/*
CEL: the marks of ownership that some metadata bears, as a list of KEY=VALUE. The argument is the CEL expression of the
metadata, for example `object.metadata`.
*/}}
{{- define "toolgate.marks" -}}
(!has({{ . }}.labels) ? [] :
  ['toolgate.dev/server', 'toolgate.dev/registered-by', 'app.kubernetes.io/managed-by'].filter(key,
    key in {{ . }}.labels && (key != 'app.kubernetes.io/managed-by' || {{ . }}.labels[key] == 'toolgate')
  ).map(key, key + '=' + {{ . }}.labels[key]))
{{- end -}}

{{/* CEL: whether the object bears a mark, or bore one. */}}
{{- define "toolgate.isMarked" -}}
size({{ include "toolgate.marks" "object.metadata" }}) > 0 ||
(oldObject != null && size({{ include "toolgate.marks" "oldObject.metadata" }}) > 0)
{{- end -}}

{{/*
CEL: whether the writer is a part of the cluster itself. Whoever can run pods as these ServiceAccounts owns the cluster.
*/}}
{{- define "toolgate.isInfrastructure" -}}
request.userInfo.username == 'system:kube-controller-manager' ||
request.userInfo.username.startsWith('system:serviceaccount:kube-system:')
{{- range .Values.admission.trustedUsers }} ||
request.userInfo.username == '{{ . }}'
{{- end }}
{{- end -}}

{{/* CEL: an update by the cluster itself that leaves the marks as they are. */}}
{{- define "toolgate.isUpkeep" -}}
request.operation == 'UPDATE' && ({{ include "toolgate.isInfrastructure" . }}) &&
{{ include "toolgate.marks" "object.metadata" }} == {{ include "toolgate.marks" "oldObject.metadata" }}
{{- end -}}

{{/* Puts a policy in force: (list . SUFFIX). */}}
{{- define "toolgate.binding" -}}
{{- $ := index . 0 -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ include "toolgate.clusterName" . }}
  labels:
    {{- include "toolgate.labels" $ | nindent 4 }}
spec:
  policyName: {{ include "toolgate.clusterName" . }}
  validationActions: {{ toJson $.Values.admission.actions }}
{{- end -}}
