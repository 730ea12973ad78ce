{{/* The labels of a component. */}}
{{- define "braid.labels" -}}
app.kubernetes.io/name: braid
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{- define "braid.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* What both pods have: which image, and how to get it. */}}
{{- define "braid.pull" -}}
image: {{ include "braid.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* A file of files/rbac, for the namespace of the release. */}}
{{- define "braid.rbac" -}}
{{- $root := index . 0 -}}
{{- $root.Files.Get (printf "files/rbac/%s.yaml" (index . 1)) | replace "namespace: kube-system" (printf "namespace: %s" $root.Release.Namespace)
  | replace "serviceaccount:kube-system:" (printf "serviceaccount:%s:" $root.Release.Namespace) -}}
{{- end -}}

{{/* What all webhooks have. */}}
{{- define "braid.webhook" -}}
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
timeoutSeconds: {{ .Values.admission.timeoutSeconds }}
clientConfig: # braid-controller adds the certificate authority
  service: {name: braid-controller, namespace: {{ .Release.Namespace }}, path: /review, port: 443}
namespaceSelector: # nothing that the controller needs to start waits for it
  matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: [{{ .Release.Namespace }}]}
{{- end -}}
