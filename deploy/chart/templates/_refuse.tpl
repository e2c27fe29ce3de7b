{{/* What cannot be done is refused before anything is changed: by key and value, with the reason. */}}
{{- define "aws-vpc-cni.refuse" -}}
{{- $v := .Values -}}

{{- range $path, $image := dict "image" $v.image "init.image" $v.init.image -}}
{{- range $key := list "override" "overrideRepository" -}}
{{- $value := toString (default "" (get $image $key)) -}}
{{- if contains "amazon-k8s-cni" $value -}}
{{- fail (printf "%s.%s is %q: that is the image of amazon-vpc-cni-k8s, which this chart does not run; leave it out, or name a copy of vpcnet's image (docs/image.md)" $path $key $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $policies := include "aws-vpc-cni.true" $v.enableNetworkPolicy -}}
{{- if and $policies (not $v.nodeAgent.enabled) -}}
{{- fail (printf "enableNetworkPolicy is %q and nodeAgent.enabled is false: nobody on the nodes would enforce the policies; set nodeAgent.enabled, or enableNetworkPolicy to \"false\"" (toString $v.enableNetworkPolicy)) -}}
{{- end -}}
{{- $mode := lower (toString (default "" $v.env.NETWORK_POLICY_ENFORCING_MODE)) -}}
{{- if and (eq $mode "strict") (not $v.nodeAgent.enabled) -}}
{{- fail "env.NETWORK_POLICY_ENFORCING_MODE is \"strict\" and nodeAgent.enabled is false: pods would start with everything allowed, and not denied until there are policies; set nodeAgent.enabled, or leave it out" -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if and (eq .name "NETWORK_POLICY_ENFORCING_MODE") (not $v.nodeAgent.enabled) -}}
{{- fail (printf "extraEnv sets NETWORK_POLICY_ENFORCING_MODE (%q) and nodeAgent.enabled is false: every pod would be refused, for the agent that it makes the plugin call is not there" (toString .value)) -}}
{{- end -}}
{{- if hasKey $v.env .name -}}
{{- fail (printf "%s stands in env (%q) and in extraEnv: which one counts is not defined in Kubernetes; leave one out" .name (toString (get $v.env .name))) -}}
{{- end -}}
{{- end -}}

{{- if include "aws-vpc-cni.true" $v.env.ENABLE_POD_ENI -}}
{{- fail (printf "env.ENABLE_POD_ENI is %q: security groups for pods are not in this version, and the agent would not start with it (docs/differences.md)" (toString $v.env.ENABLE_POD_ENI)) -}}
{{- end -}}
{{- $v4 := include "aws-vpc-cni.true" (default "false" $v.env.ENABLE_IPv4) -}}
{{- $v6 := include "aws-vpc-cni.true" (default "false" $v.env.ENABLE_IPv6) -}}
{{- if eq (toString $v4) (toString $v6) -}}
{{- fail (printf "env.ENABLE_IPv4 is %q and env.ENABLE_IPv6 is %q: exactly one of them must be true" (toString $v.env.ENABLE_IPv4) (toString $v.env.ENABLE_IPv6)) -}}
{{- end -}}
{{- if and $v6 (not (include "aws-vpc-cni.true" $v.env.ENABLE_PREFIX_DELEGATION)) -}}
{{- fail (printf "env.ENABLE_IPv6 is true and env.ENABLE_PREFIX_DELEGATION is %q: IPv6 addresses come from prefixes; set it to \"true\"" (toString $v.env.ENABLE_PREFIX_DELEGATION)) -}}
{{- end -}}
{{- if and $v6 (include "aws-vpc-cni.true" $v.env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG) -}}
{{- fail "env.ENABLE_IPv6 and env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG are true: custom networking is for IPv4 only" -}}
{{- end -}}
{{- $least := ternary 1280 576 (eq $v6 "true") -}}
{{- range $name := list "AWS_VPC_ENI_MTU" "POD_MTU" -}}
{{- $value := include "aws-vpc-cni.text" (default "" (get $v.env $name)) -}}
{{- if and $value (or (lt (int $value) $least) (gt (int $value) 9001)) -}}
{{- fail (printf "env.%s is %q: expected a whole number of bytes from %d to 9001" $name $value $least) -}}
{{- end -}}
{{- end -}}
{{- if and $v4 (include "aws-vpc-cni.true" $v.env.ENABLE_PREFIX_DELEGATION) -}}
{{- $targets := 0 -}}
{{- range $name := list "WARM_IP_TARGET" "WARM_PREFIX_TARGET" "MINIMUM_IP_TARGET" -}}
{{- $targets = add $targets (int (include "aws-vpc-cni.text" (default "0" (get $v.env $name)))) -}}
{{- end -}}
{{- if eq (int $targets) 0 -}}
{{- fail "env.ENABLE_PREFIX_DELEGATION is true and WARM_IP_TARGET, WARM_PREFIX_TARGET and MINIMUM_IP_TARGET are all 0 or not set: the agent does not start so; set one of them" -}}
{{- end -}}
{{- end -}}
{{- range $name := list "ENABLE_IPv6" "ENABLE_V6_EGRESS" -}}
{{- $own := get $v.init.env $name -}}
{{- $agents := include "aws-vpc-cni.shared" (dict "root" $ "name" $name "default" "false") -}}
{{- if and (hasKey $v.init.env $name) (ne (include "aws-vpc-cni.true" $own) (include "aws-vpc-cni.true" $agents)) -}}
{{- fail (printf "init.env.%s is %q and env.%s is %q: the node would be prepared for another family than its pods have; leave init.env.%s out, it follows the other" $name (toString $own) $name $agents $name) -}}
{{- end -}}
{{- end -}}

{{- if and $v.cniConfig.enabled (not $v.cniConfig.fileContents) -}}
{{- fail "cniConfig.enabled is true and cniConfig.fileContents is empty: there would be no plugin to run; give the file's text (docs/image.md says which tokens are replaced)" -}}
{{- end -}}
{{- if and $v.eniConfig.create (not $v.eniConfig.subnets) -}}
{{- fail "eniConfig.create is true and eniConfig.subnets is empty: name them, as us-west-2a: {id: subnet-0123456789abcdef0, securityGroups: [sg-0123456789abcdef0]}" -}}
{{- end -}}
{{- if and $v.nodeAgent.enabled (eq (toString $v.nodeAgent.metricsBindAddr) (toString $v.nodeAgent.healthProbeBindAddr)) -}}
{{- fail (printf "nodeAgent.metricsBindAddr and nodeAgent.healthProbeBindAddr are both %q: two servers cannot listen there" (toString $v.nodeAgent.metricsBindAddr)) -}}
{{- end -}}
{{- end -}}
