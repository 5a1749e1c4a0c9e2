{{- define "acrcred.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Room is left for the longest suffix, -impersonation. */}}
{{- define "acrcred.fullname" -}}
{{- $name := include "acrcred.name" . }}
{{- if .Values.fullnameOverride }}
{{- $name = .Values.fullnameOverride }}
{{- else if not (contains $name .Release.Name) }}
{{- $name = printf "%s-%s" .Release.Name $name }}
{{- else }}
{{- $name = .Release.Name }}
{{- end }}
{{- $name | trunc 49 | trimSuffix "-" }}
{{- end }}

{{- define "acrcred.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "acrcred.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the ServiceAccount, since serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* As the API server knows acrcred. */}}
{{- define "acrcred.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "acrcred.serviceAccountName" . }}
{{- end }}

{{- /* Never changes: a Deployment's selector is immutable. */}}
{{- define "acrcred.selectorLabels" -}}
app.kubernetes.io/name: {{ include "acrcred.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "acrcred.labels" -}}
{{ include "acrcred.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "acrcred.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "acrcred.replicas" -}}
{{- if .Values.leaderElection.enabled }}{{ .Values.replicaCount }}{{ else }}{{ min 1 .Values.replicaCount }}{{ end }}
{{- end }}

{{- /* What acrcred does in a namespace that it serves. */}}
{{- define "acrcred.rules" -}}
# The one watch.
- apiGroups: [acrcred.dev]
  resources: [acrcredentials]
  verbs: [list, watch]
# The status is replaced by a JSON patch.
- apiGroups: [acrcred.dev]
  resources: [acrcredentials/status]
  verbs: [patch]
# acrcred creates Secrets by POST and updates them by PUT, and reads none. Never add patch: the API server quotes the
# whole stored object in its answer to a malformed patch, before any admission policy runs. Which Secrets acrcred may
# write is limited by the admission policy {{ include "acrcred.fullname" . }}-secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, update]
# No patch here either: the answer to an empty patch is the stored Event.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{- define "acrcred.watchSecretsRules" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson .Values.watchSecrets.names }}
  verbs: [list, watch]
{{- end }}

{{- define "acrcred.impersonationRules" -}}
# Its annotations say which identity it stands for, its UID is part of what the token must say. No list, no watch.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
{{- end }}

{{- define "acrcred.subjects" -}}
- kind: ServiceAccount
  name: {{ include "acrcred.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* A Role and its binding in one namespace. Takes root, namespace, suffix and rules (the name of a template). */}}
{{- define "acrcred.roleIn" -}}
{{- $name := printf "%s%s" (include "acrcred.fullname" .root) .suffix }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "acrcred.labels" .root | nindent 4 }}
rules:
{{ include .rules .root }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "acrcred.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
{{ include "acrcred.subjects" .root }}
{{- end }}

{{- /* A ClusterRole. Takes root, suffix and rules (the name of a template). */}}
{{- define "acrcred.clusterRole" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ include "acrcred.fullname" .root }}{{ .suffix }}
  labels:
    {{- include "acrcred.labels" .root | nindent 4 }}
rules:
{{ include .rules .root }}
{{- end }}

{{- /* Binds a ClusterRole in one namespace, or, without one, everywhere. Takes root, suffix and namespace. */}}
{{- define "acrcred.bindClusterRole" -}}
{{- $name := printf "%s%s" (include "acrcred.fullname" .root) .suffix }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "RoleBinding" "ClusterRoleBinding" (not (empty .namespace)) }}
metadata:
  name: {{ $name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "acrcred.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
{{ include "acrcred.subjects" .root }}
{{- end }}

{{- /* What the schema cannot say, since it looks at more than one value. */}}
{{- define "acrcred.check" -}}
{{- if and (eq .Values.rbac.scope "namespaces") (not .Values.watchNamespaces) }}
{{- fail "watchNamespaces: name at least one namespace, since rbac.scope is namespaces" }}
{{- end }}
{{- if and .Values.allowControllerIdentity (not .Values.clientId) }}
{{- fail "clientId: set the client id of acrcred's own identity, since allowControllerIdentity names a namespace" }}
{{- end }}
{{- if and .Values.allowControllerIdentity (not .Values.tenantId) (not .Values.workloadIdentityWebhook.enabled) }}
{{- fail "tenantId: set the tenant of acrcred's own identity, since allowControllerIdentity names a namespace" }}
{{- end }}
{{- range .Values.impersonationAudiences }}
{{- if or (hasPrefix "kubernetes" (trimPrefix "https://" .)) (eq . "api") }}
{{- fail (printf "impersonationAudiences: %s is the audience of an API server; set one that only Microsoft Entra accepts" .) }}
{{- end }}
{{- end }}
{{- if and .Values.environmentFile.content .Values.environmentFile.existingConfigMap }}
{{- fail "environmentFile: set content or existingConfigMap, not both" }}
{{- end }}
{{- end }}
