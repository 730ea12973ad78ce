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
