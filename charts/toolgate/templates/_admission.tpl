{{/*
CEL: the marks of ownership that some metadata bears, as a list of KEY=VALUE. The argument is the CEL expression of the
metadata, for example `object.metadata`. The keys are a list, since the order of a map's keys is not fixed.
*/}}
{{- define "toolgate.marks" -}}
(!has({{ . }}.labels) ? [] : ['toolgate.dev/server', 'toolgate.dev/registered-by', 'app.kubernetes.io/managed-by']
.filter(key, key in {{ . }}.labels && (key != 'app.kubernetes.io/managed-by' || {{ . }}.labels[key] == 'toolgate'))
.map(key, key + '=' + {{ . }}.labels[key]))
{{- end -}}

{{/* CEL: whether some metadata bears a mark of ownership. */}}
{{- define "toolgate.isMarked" -}}
(has({{ . }}.labels) && ('toolgate.dev/server' in {{ . }}.labels || 'toolgate.dev/registered-by' in {{ . }}.labels ||
('app.kubernetes.io/managed-by' in {{ . }}.labels && {{ . }}.labels['app.kubernetes.io/managed-by'] == 'toolgate')))
{{- end -}}

{{/* CEL: whether the object bears a mark, or bore one. */}}
{{- define "toolgate.isOrWasMarked" -}}
{{ include "toolgate.isMarked" "object.metadata" }} ||
(oldObject != null && {{ include "toolgate.isMarked" "oldObject.metadata" }})
{{- end -}}

{{/* Variables `marks` and `oldMarks`: what the object bears, and bore. */}}
{{- define "toolgate.marksOfBoth" -}}
- name: marks
  expression: >-
    {{- include "toolgate.marks" "object.metadata" | nindent 4 }}
- name: oldMarks
  expression: >-
    oldObject == null ? [] :
    {{- include "toolgate.marks" "oldObject.metadata" | nindent 4 }}
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

{{/* Variable `isUpkeep`: an update by the cluster itself that leaves the marks as they are; needs both of these. */}}
{{- define "toolgate.isUpkeep" -}}
- name: isUpkeep
  expression: >-
    request.operation == 'UPDATE' && variables.marks == variables.oldMarks && (
    {{- include "toolgate.isInfrastructure" . | nindent 4 }})
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
