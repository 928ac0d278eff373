{{/* What the installation's objects are called. */}}
{{- define "outrigger.name" -}}
{{- if eq .Values.revision "default" }}outrigger{{ else }}outrigger-{{ .Values.revision }}{{ end -}}
{{- end }}

{{/* What only this installation's objects have: their selector. */}}
{{- define "outrigger.selector" -}}
app.kubernetes.io/name: {{ include "outrigger.name" . }}
{{- end }}

{{/* What the repair controller's objects have: the webhook's Service must not select its pod. */}}
{{- define "outrigger.repair" -}}
app.kubernetes.io/name: {{ include "outrigger.name" . }}-repair
{{- end }}

{{- define "outrigger.labels" -}}
{{ include "outrigger.selector" . }}
app.kubernetes.io/part-of: outrigger
{{- end }}

{{/* A file of the chart with the installation's names in place of those of the manifests. Argument: list ROOT FILE */}}
{{- define "outrigger.renamed" -}}
{{- $root := index . 0 }}
{{- $name := include "outrigger.name" $root }}
{{- $text := $root.Files.Get (index . 1) | replace "outrigger-system" $root.Release.Namespace }}
{{- $text = $text | replace "service=\"outrigger\"" (printf "service=\"%s\"" $name) }}
{{- $text = $text | replace "app.kubernetes.io/name=outrigger" (printf "app.kubernetes.io/name=%s" $name) }}
{{- $text = $text | replace "ConfigMap outrigger" (printf "ConfigMap %s" $name) }}
{{- $text = $text | replace "Secret outrigger-certificate" (printf "Secret %s-certificate" $name) }}
{{- $text }}
{{- end }}

{{/* One webhook of a registration. Arguments: root, name, path, namespaces, pods (lists of expressions) */}}
{{- define "outrigger.webhook" -}}
- name: {{ .name }}.sidecar-injector.outrigger.dev
  clientConfig: # no caBundle: who makes the certificate writes it
    service:
      namespace: {{ .root.Release.Namespace }}
      name: {{ include "outrigger.name" .root }}
      path: {{ .path }}
      port: 443
  rules:
    - operations: [CREATE]
      apiGroups: [""]
      apiVersions: [v1]
      resources: [pods]
      scope: Namespaced
  namespaceSelector:
    matchExpressions:
      {{- toYaml .namespaces | nindent 6 }}
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values: [kube-system, kube-public, kube-node-lease, local-path-storage, {{ .root.Release.Namespace }}]
  objectSelector:
    matchExpressions:
      {{- toYaml .pods | nindent 6 }}
  matchConditions:
    # A pod on the node's network is not injected. One that asks for it all the same is told why.
    - name: host-network
      expression: >-
        !has(object.spec.hostNetwork) || !object.spec.hostNetwork ||
        (has(object.metadata.labels) && 'sidecar.istio.io/inject' in object.metadata.labels) ||
        (has(object.metadata.annotations) && 'sidecar.istio.io/inject' in object.metadata.annotations)
    # The label is the objectSelector's; where there is none, the annotation can refuse.
    - name: annotation
      expression: >-
        !has(object.metadata.annotations) || !('sidecar.istio.io/inject' in object.metadata.annotations) ||
        object.metadata.annotations['sidecar.istio.io/inject'] != 'false' ||
        (has(object.metadata.labels) && 'sidecar.istio.io/inject' in object.metadata.labels)
  admissionReviewVersions: [v1, v1beta1]
  failurePolicy: Fail
  matchPolicy: Equivalent
  reinvocationPolicy: IfNeeded
  sideEffects: NoneOnDryRun # an Event tells of a pod that is created
  timeoutSeconds: 5
{{- end }}

{{/* The two webhooks that ask for istio.io/rev. Arguments: root, revision (or tag), path */}}
{{- define "outrigger.revision" -}}
{{- $absent := list (dict "key" "istio-injection" "operator" "DoesNotExist") }}
{{- $revision := dict "key" "istio.io/rev" "operator" "In" "values" (list .revision) }}
{{- $none := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $unrefused := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- include "outrigger.webhook" (dict "root" .root "path" .path "name" "rev.namespace"
      "namespaces" (prepend $absent $revision) "pods" (list $unrefused)) }}
{{ include "outrigger.webhook" (dict "root" .root "path" .path "name" "rev.object"
      "namespaces" (append $absent $none) "pods" (list $unrefused $revision)) }}
{{- end }}
