{{- define "aws-vpc-cni.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "aws-vpc-cni.fullname" -}}
{{- default (printf "%s-%s" .Release.Name .Chart.Name) .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "aws-vpc-cni.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aws-vpc-cni.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "aws-vpc-cni.labels" -}}
app.kubernetes.io/name: {{ include "aws-vpc-cni.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
k8s-app: aws-node
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Kubernetes never lets it change, so it is the original's to the letter. */}}
{{- define "aws-vpc-cni.selector" -}}
{{- if .Values.originalMatchLabels -}}
k8s-app: aws-node
{{- else -}}
app.kubernetes.io/name: {{ include "aws-vpc-cni.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* "true" for what Go's ParseBool, and so the agent, takes for true; else nothing. */}}
{{- define "aws-vpc-cni.true" -}}
{{- if has (toString .) (list "1" "t" "T" "true" "TRUE" "True") }}true{{ end -}}
{{- end -}}

{{/* Numbers come out of YAML as floats: 300, and not 3e+02. */}}
{{- define "aws-vpc-cni.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* AWS's registries of EKS, one account for a group of regions (EKS user guide, "Amazon container image registries"). */}}
{{- define "aws-vpc-cni.awsAccounts" -}}
602401143452 800184023465 877085696533 533267051163 296578399912 900889452093 491585149902 151610086707 333609536671 121268973566 761377655185 900612956339 590381155156 455263428931 066635153087 558608220178 759879836304 918309763551 961992271922 151742754352 013241004608
{{- end -}}

{{/* Whether an image's coordinates are those of AWS's own image. Of: root, image. */}}
{{- define "aws-vpc-cni.isAws" -}}
{{- $account := include "aws-vpc-cni.text" (default "" .image.account) -}}
{{- if and $account (has $account (splitList " " (include "aws-vpc-cni.awsAccounts" .root))) -}}true{{- end -}}
{{- end -}}

{{/* A tag as AWS gives them: it says nothing of vpcnet's image. */}}
{{- define "aws-vpc-cni.tag" -}}
{{- $tag := toString (default "" .image.tag) -}}
{{- if or (eq $tag "") (regexMatch "^v1\\.[0-9]+\\.[0-9]+(-eksbuild\\.[0-9]+)?$" $tag) -}}
{{ .root.Chart.AppVersion }}
{{- else -}}
{{ $tag }}
{{- end -}}
{{- end -}}

{{/* An image of vpcnet's. Of: root, image, path (image or init.image), name. */}}
{{- define "aws-vpc-cni.image" -}}
{{- $tag := include "aws-vpc-cni.tag" . -}}
{{- if .image.override -}}
{{ .image.override }}
{{- else if .image.overrideRepository -}}
{{ .image.overrideRepository }}:{{ $tag }}
{{- else if and .image.account (not (include "aws-vpc-cni.isAws" .)) -}}
{{ include "aws-vpc-cni.ecr" . }}/{{ .name }}:{{ $tag }}
{{- else -}}
{{ .image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "aws-vpc-cni.ecr" -}}
{{ include "aws-vpc-cni.text" .image.account }}.dkr.{{ default "ecr" .image.endpoint }}.{{ default "us-west-2" .image.region }}.{{ default "amazonaws.com" .image.domain }}
{{- end -}}

{{/* AWS's network policy agent. */}}
{{- define "aws-vpc-cni.nodeAgentImage" -}}
{{- $image := .Values.nodeAgent.image -}}
{{- if $image.override -}}
{{ $image.override }}
{{- else if $image.overrideRepository -}}
{{ $image.overrideRepository }}:{{ $image.tag }}
{{- else -}}
{{ include "aws-vpc-cni.ecr" (dict "image" $image) }}/amazon/aws-network-policy-agent:{{ $image.tag }}
{{- end -}}
{{- end -}}

{{/* Kubernetes refuses allowPrivilegeEscalation: false beside privileged: true, which values of the original bring. */}}
{{- define "aws-vpc-cni.securityContext" -}}
{{- if .privileged -}}
{{ toYaml (omit . "allowPrivilegeEscalation") }}
{{- else -}}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* What the init container must do as the agent does. Of: root, name, default. */}}
{{- define "aws-vpc-cni.shared" -}}
{{- $agents := get .root.Values.env .name -}}
{{- range .root.Values.extraEnv }}{{ if eq .name $.name }}{{ $agents = .value }}{{ end }}{{ end -}}
{{- if or (kindIs "invalid" $agents) (eq (toString $agents) "") }}{{ $agents = .default }}{{ end -}}
{{- include "aws-vpc-cni.text" $agents -}}
{{- end -}}

{{/* What of the values names AWS's registry, which has no image of vpcnet: one sentence a line. */}}
{{- define "aws-vpc-cni.passedOver" -}}
{{- range $path, $image := dict "image" .Values.image "init.image" .Values.init.image -}}
{{- if and (include "aws-vpc-cni.isAws" (dict "root" $ "image" $image)) (not $image.override) (not $image.overrideRepository) -}}
{{- $name := ternary "vpcnet" "vpcnet-init" (eq $path "image") }}
{{ $path }}: account {{ include "aws-vpc-cni.text" $image.account }}{{ with $image.tag }}, tag {{ . }}{{ end }}: AWS's registry has no image of vpcnet; {{ include "aws-vpc-cni.image" (dict "root" $ "image" $image "name" $name) }} is used.
{{- end -}}
{{- end -}}
{{- end -}}
