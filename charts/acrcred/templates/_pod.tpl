{{- /* Flags of the lease. Its name is the release's, so that two releases in one namespace do not share it. */}}
{{- define "acrcred.leaseArgs" -}}
- --leader-elect
- --lease-name={{ include "acrcred.fullname" . }}
{{- end }}

{{- /* Not empty if the Pod brings the token of acrcred's own identity itself. */}}
{{- define "acrcred.ownToken" -}}
{{- if and .Values.clientId (not .Values.workloadIdentityWebhook.enabled) }}true{{ end }}
{{- end }}

{{- /* The ConfigMap with the environment file, if there is one. */}}
{{- define "acrcred.environmentFile" -}}
{{- if .Values.environmentFile.content }}
{{- include "acrcred.fullname" . }}-environment
{{- else }}
{{- .Values.environmentFile.existingConfigMap }}
{{- end }}
{{- end }}

{{- /* The variables that acrcred reads. */}}
{{- define "acrcred.env" -}}
{{- if .Values.leaderElection.enabled }}
# Who holds the lease.
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- if include "acrcred.ownToken" . }}
- name: AZURE_CLIENT_ID
  value: {{ .Values.clientId | quote }}
- name: AZURE_FEDERATED_TOKEN_FILE
  value: /var/run/secrets/azure/tokens/azure-identity-token
{{- end }}
{{- if not .Values.workloadIdentityWebhook.enabled }}
{{- with .Values.tenantId }}
- name: AZURE_TENANT_ID
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.authorityHost }}
- name: AZURE_AUTHORITY_HOST
  value: {{ . | quote }}
{{- end }}
{{- if include "acrcred.environmentFile" . }}
- name: AZURE_ENVIRONMENT_FILEPATH
  value: /etc/acrcred/environment/{{ .Values.environmentFile.key }}
{{- end }}
{{- with .Values.proxy.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if .Values.caBundle.configMap }}
- name: SSL_CERT_FILE
  value: /etc/acrcred/ca/{{ .Values.caBundle.key }}
{{- end }}
{{- end }}

{{- define "acrcred.volumeMounts" -}}
{{- if include "acrcred.ownToken" . }}
- name: azure-token
  mountPath: /var/run/secrets/azure/tokens
  readOnly: true
{{- end }}
{{- if include "acrcred.environmentFile" . }}
- name: environment-file
  mountPath: /etc/acrcred/environment
  readOnly: true
{{- end }}
{{- if .Values.caBundle.configMap }}
- name: ca-bundle
  mountPath: /etc/acrcred/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "acrcred.volumes" -}}
{{- if include "acrcred.ownToken" . }}
# What the Azure workload identity webhook would mount.
- name: azure-token
  projected:
    sources:
    - serviceAccountToken:
        path: azure-identity-token
        audience: {{ .Values.federatedToken.audience | quote }}
        expirationSeconds: {{ .Values.federatedToken.expirationSeconds }}
{{- end }}
{{- with include "acrcred.environmentFile" . }}
- name: environment-file
  configMap:
    name: {{ . }}
{{- end }}
{{- with .Values.caBundle.configMap }}
- name: ca-bundle
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}
