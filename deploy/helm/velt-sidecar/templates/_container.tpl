{{/*
The sidecar as an entry of your pod's initContainers, where restartPolicy: Always makes it a native sidecar:

    initContainers:
      {{- include "velt-sidecar.container" . | nindent 6 }}

Point your Service at ports.http, and have the app listen on loopback.
*/}}
{{- define "velt-sidecar.container" -}}
{{- $values := index .Values "velt-sidecar" -}}
- name: velt-sidecar
  image: {{ include "velt-sidecar.image" . | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  restartPolicy: Always
  env:
    {{- include "velt-sidecar.environment" $values | nindent 4 }}
  ports:
    - name: velt-http
      containerPort: {{ $values.ports.http }}
    - name: velt-admin
      containerPort: {{ $values.ports.admin }}
  # The app starts after this one has succeeded.
  startupProbe:
    httpGet:
      path: /healthz/startup
      port: velt-admin
    periodSeconds: 1
    failureThreshold: 30
  # Never depends on Velt.
  readinessProbe:
    httpGet:
      path: /healthz/ready
      port: velt-admin
    periodSeconds: 5
  livenessProbe:
    httpGet:
      path: /healthz/live
      port: velt-admin
    periodSeconds: 10
  # Runs beside the app's preStop hook: clients are asked to leave before the app ends.
  lifecycle:
    preStop:
      exec:
        command: ["/usr/local/bin/velt-sidecar", "drain"]
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "velt-sidecar.securityContext" . | nindent 4 }}
  {{- if or $values.secret.mounted $values.shared.addresses $values.extraVolumeMounts }}
  volumeMounts:
    {{- if $values.secret.mounted }}
    - name: velt-sidecar-secret
      mountPath: /run/secrets/velt
      readOnly: true
    {{- end }}
    {{- if $values.shared.addresses }}
    - name: velt-sidecar-store
      mountPath: /run/secrets/velt-store
      readOnly: true
    {{- end }}
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}

{{/*
Entries of your pod's volumes: the Secret with secret.mounted, and the store's with shared.addresses. Without either,
nothing.
*/}}
{{- define "velt-sidecar.volumes" -}}
{{- $values := index .Values "velt-sidecar" -}}
{{- if $values.secret.mounted -}}
- name: velt-sidecar-secret
  secret:
    secretName: {{ $values.secret.name | quote }}
{{ end }}
{{- if $values.shared.addresses -}}
- name: velt-sidecar-store
  secret:
    secretName: {{ $values.shared.secret.name | quote }}
{{- end }}
{{- end }}

{{/*
Labels for the pod's metadata, beside your own, by which NetworkPolicies find the pod:

    labels:
      {{- include "velt-sidecar.podLabels" . | nindent 6 }}
*/}}
{{- define "velt-sidecar.podLabels" -}}
velt-sidecar/injected: "true"
{{- end }}

{{/*
The securityContext without keys that are null. OpenShift's restricted-v2 gives each pod a user id of its
namespace's range and refuses any other, so the image's own user and group are left out there.
*/}}
{{- define "velt-sidecar.securityContext" -}}
{{- $openshift := .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
{{- $context := dict -}}
{{- range $key, $value := (index .Values "velt-sidecar").securityContext -}}
{{- $image := and (has $key (list "runAsUser" "runAsGroup")) (eq (toString $value) "65532") -}}
{{- if not (or (kindIs "invalid" $value) (and $openshift $image)) -}}
{{- $_ := set $context $key $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $context }}
{{- end }}

{{- define "velt-sidecar.image" -}}
{{- $image := (index .Values "velt-sidecar").image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index .Subcharts "velt-sidecar").Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "velt-sidecar.environment" -}}
{{- /* A pod has addresses of IPv6, IPv4 or both: [::] takes clients of both, and of IPv4 alone without IPv6. */ -}}
{{- $config := dict "listen.address" (printf "[::]:%v" .ports.http) "admin.address" (printf "[::]:%v" .ports.admin) -}}
{{- range $key, $address := pick .config "listen.address" "admin.address" -}}
{{- $port := hasPrefix "listen" $key | ternary $.ports.http $.ports.admin -}}
{{- if not (hasSuffix (printf ":%v" $port) (toString $address)) -}}
{{- fail (printf "velt-sidecar: config %s is %q, but the container's port is %v: change velt-sidecar.ports" $key $address $port) -}}
{{- end -}}
{{- end -}}
{{- if .secret.mounted -}}
- name: VELT_SIDECAR_VELT__API_KEY_FILE
  value: {{ printf "/run/secrets/velt/%s" .secret.apiKey | quote }}
- name: VELT_SIDECAR_VELT__AUTH_TOKEN_FILE
  value: {{ printf "/run/secrets/velt/%s" .secret.authToken | quote }}
{{- else -}}
- name: VELT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .secret.name | quote }}
      key: {{ .secret.apiKey | quote }}
- name: VELT_AUTH_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .secret.name | quote }}
      key: {{ .secret.authToken | quote }}
{{- end }}
{{- if .shared.addresses -}}
{{- if hasKey .config "shared.addresses" -}}
{{- fail "velt-sidecar: addresses of the store are in config and in velt-sidecar.shared: keep those in velt-sidecar.shared" -}}
{{- end -}}
{{- $_ := set $config "shared.addresses" (join ", " .shared.addresses) -}}
{{- range $setting, $file := dict "password" .shared.secret.password "seal_key" .shared.secret.sealKey "other_seal_key" .shared.secret.otherSealKey -}}
{{- if $file -}}
{{- $_ := set $config (printf "shared.%s_file" $setting) (printf "/run/secrets/velt-store/%s" $file) -}}
{{- end -}}
{{- end -}}
{{- end }}
{{- range $key, $value := merge (dict) .config $config }}
{{- if not (kindIs "invalid" $value) }}
- name: VELT_SIDECAR_{{ $key | upper | replace "." "__" }}
  {{- /* Numbers of a values file are floats: 1000000 would be written as 1e+06. */}}
  value: {{ (kindIs "slice" $value) | ternary (toJson $value) (kindIs "float64" $value | ternary (toJson $value) (toString $value)) | quote }}
{{- end }}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
