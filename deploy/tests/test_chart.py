"""What the chart renders, and what it refuses. Run by scripts/chart-check, which says by HELM which helm, and by MANIFEST_CHECK which
program judges manifests by Kubernetes' own types."""

import base64
import json
import os
import pathlib
import subprocess
import unittest

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
CHART = DEPLOY / "chart"
ORIGINAL = DEPLOY / "tests" / "original-values.yaml"
HELM = os.environ["HELM"]
MANIFEST_CHECK = os.environ.get("MANIFEST_CHECK")
VPCNET = os.environ.get("VPCNET")
# What the control plane would offer beside the built-in kinds.
PLAIN = ["--namespace", "kube-system", "--kube-version", "1.34.0"]


def helm(*args):
    return subprocess.run([HELM, *args], capture_output=True, text=True, check=False)


def template(*args, values=None):
    command = ["template", "aws-vpc-cni", str(CHART), *PLAIN, *args]
    if values is not None:
        command += ["--values", "-"]
    return subprocess.run(
        [HELM, *command], capture_output=True, text=True, check=False, input=None if values is None else json.dumps(values)
    )


def rendered(*args, values=None):
    done = template(*args, values=values)
    if done.returncode:
        raise AssertionError(done.stderr)
    return Objects(done.stdout)


class Objects:
    def __init__(self, text):
        self.text = text
        self.all = [o for o in yaml.safe_load_all(text) if o]

    def one(self, kind, name=None):
        found = [o for o in self.all if o["kind"] == kind and name in (None, o["metadata"]["name"])]
        assert len(found) == 1, f"{kind} {name}: {[(o['kind'], o['metadata']['name']) for o in self.all]}"
        return found[0]

    def kinds(self):
        return sorted(o["kind"] for o in self.all)

    def pod(self):
        return self.one("DaemonSet")["spec"]["template"]["spec"]

    def container(self, name):
        pod = self.pod()
        found = [c for c in pod["initContainers"] + pod["containers"] if c["name"] == name]
        return found[0] if found else None

    def env(self, name="aws-node"):
        env = self.container(name)["env"]
        names = [e["name"] for e in env]
        assert len(names) == len(set(names)), names
        return {e["name"]: e.get("value", e.get("valueFrom")) for e in env}

    def rules(self):
        return {
            (group, resource, verb)
            for rule in self.one("ClusterRole")["rules"]
            for group in rule.get("apiGroups", ["-"])
            for resource in rule.get("resources", rule.get("nonResourceURLs"))
            for verb in rule["verbs"]
        }


class Defaults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = rendered()

    def test_lint_finds_nothing(self):
        for args in ([], ["--values", str(ORIGINAL)]):
            done = helm("lint", "--strict", str(CHART), *args)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_crds_come_along(self):
        objects = rendered("--include-crds")
        self.assertEqual(
            objects.one("CustomResourceDefinition")["metadata"]["name"], "eniconfigs.crd.k8s.amazonaws.com"
        )

    def test_objects_and_their_names_are_the_originals(self):
        self.assertEqual(
            self.objects.kinds(), ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"]
        )
        for kind in ("ClusterRole", "ClusterRoleBinding", "DaemonSet", "ServiceAccount"):
            self.assertEqual(self.objects.one(kind)["metadata"]["name"], "aws-node")
        daemonset = self.objects.one("DaemonSet")
        self.assertEqual(daemonset["metadata"]["namespace"], "kube-system")
        self.assertEqual(
            daemonset["spec"]["selector"]["matchLabels"],
            {"app.kubernetes.io/name": "aws-node", "app.kubernetes.io/instance": "aws-vpc-cni"},
        )
        labels = daemonset["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(labels["k8s-app"], "aws-node")
        self.assertTrue(daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items())

    def test_containers_have_the_originals_names_and_ours_are_not_privileged(self):
        pod = self.objects.pod()
        self.assertEqual([c["name"] for c in pod["initContainers"]], ["aws-vpc-cni-init"])
        self.assertEqual([c["name"] for c in pod["containers"]], ["aws-node", "aws-eks-nodeagent"])
        for name, capabilities in (("aws-vpc-cni-init", ["NET_ADMIN"]), ("aws-node", ["NET_ADMIN", "NET_RAW"])):
            context = self.objects.container(name)["securityContext"]
            self.assertNotIn("privileged", context)
            self.assertFalse(context["allowPrivilegeEscalation"])
            self.assertEqual(context["capabilities"], {"drop": ["ALL"], "add": capabilities})
        self.assertTrue(self.objects.container("aws-eks-nodeagent")["securityContext"]["privileged"])

    def test_every_container_of_ours_has_vpcnets_image(self):
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        self.assertEqual(self.objects.container("aws-node")["image"], f"ghcr.io/vpcnet/vpcnet:{version}")
        self.assertEqual(self.objects.container("aws-vpc-cni-init")["image"], f"ghcr.io/vpcnet/vpcnet-init:{version}")
        self.assertEqual(
            self.objects.container("aws-eks-nodeagent")["image"],
            "602401143452.dkr.ecr.us-west-2.amazonaws.com/amazon/aws-network-policy-agent:v1.4.2",
        )

    def test_the_chart_and_the_program_have_one_version(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        workspace = (DEPLOY.parent / "Cargo.toml").read_text()
        self.assertIn(f'\nversion = "{chart["appVersion"]}"\n', workspace)
        self.assertEqual(chart["version"], chart["appVersion"])

    def test_mounts_are_those_that_are_accounted_for_in_security_md(self):
        paths = {v["name"]: v["hostPath"]["path"] for v in self.objects.pod()["volumes"]}
        security = (DEPLOY.parent / "SECURITY.md").read_text()
        for path in paths.values():
            self.assertIn(f"`{path}`", security)
        # And nothing is mounted that there is no volume for.
        pod = self.objects.pod()
        for container in pod["initContainers"] + pod["containers"]:
            for mount in container["volumeMounts"]:
                self.assertIn(mount["name"], paths)
                self.assertNotEqual(mount["mountPath"], "/proc/sys/net")

    def test_capabilities_are_accounted_for_in_security_md(self):
        security = (DEPLOY.parent / "SECURITY.md").read_text()
        for name in ("aws-vpc-cni-init", "aws-node"):
            for capability in self.objects.container(name)["securityContext"]["capabilities"]["add"]:
                self.assertIn(f"`{name}` | `{capability}`", security)

    def test_rights_in_the_cluster_are_no_more_than_is_needed(self):
        expected = {("crd.k8s.amazonaws.com", "eniconfigs", v) for v in ("get", "list", "watch")}
        expected |= {("", r, v) for r in ("pods", "nodes") for v in ("get", "list", "watch")}
        expected |= {(g, "events", v) for g in ("", "events.k8s.io") for v in ("create", "patch")}
        policies = {
            ("networking.k8s.aws", r, v)
            for r in ("policyendpoints", "clusterpolicyendpoints")
            for v in ("get", "list", "watch")
        }
        policies |= {("networking.k8s.aws", f"{r}/status", "get") for r in ("policyendpoints", "clusterpolicyendpoints")}
        policies |= {("-", f"/apis/networking.k8s.aws{end}", "get") for end in ("", "/*")}
        self.assertEqual(self.objects.rules(), expected | policies)
        without = rendered("--set", "nodeAgent.enabled=false")
        self.assertEqual(without.rules(), expected)

    def test_pods_may_be_patched_only_where_they_are_annotated(self):
        patch = ("", "pods", "patch")
        for value, patched in (("true", True), ("1", True), ("false", False), ("0", False)):
            self.assertEqual(patch in rendered("--set-string", f"env.ANNOTATE_POD_IP={value}").rules(), patched, value)

    def test_the_agents_settings_are_what_the_agent_takes(self):
        if not VPCNET:
            self.skipTest("no vpcnet program")
        for args in ([], ["--values", str(ORIGINAL)]):
            daemonset = yaml.safe_dump(rendered(*args).one("DaemonSet"))
            done = subprocess.run(
                [VPCNET, "config", "check", "--file", "-"], input=daemonset, capture_output=True, text=True, check=False
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_probes_ports_and_the_rest_of_the_pod(self):
        pod = self.objects.pod()
        self.assertTrue(pod["hostNetwork"])
        self.assertEqual(pod["priorityClassName"], "system-node-critical")
        self.assertEqual(pod["terminationGracePeriodSeconds"], 10)
        self.assertEqual(pod["tolerations"], [{"operator": "Exists"}])
        agent = self.objects.container("aws-node")
        self.assertEqual(agent["ports"], [{"containerPort": 61678, "name": "metrics"}])
        self.assertEqual(agent["livenessProbe"]["exec"]["command"][0], "/app/grpc-health-probe")
        self.assertEqual(agent["livenessProbe"]["initialDelaySeconds"], 60)
        self.assertEqual(agent["readinessProbe"]["timeoutSeconds"], 10)
        self.assertEqual(agent["resources"], {"requests": {"cpu": "25m"}})
        self.assertEqual(self.objects.container("aws-vpc-cni-init")["resources"], agent["resources"])
        self.assertEqual(
            self.objects.env()["MY_NODE_NAME"], {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}
        )
        self.assertEqual(self.objects.one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"], {"maxUnavailable": "10%"})

    def test_the_config_map_has_every_key(self):
        self.assertEqual(
            self.objects.one("ConfigMap", "amazon-vpc-cni")["data"],
            {
                "enable-network-policy-controller": "false",
                "enable-windows-ipam": "false",
                "enable-windows-prefix-delegation": "false",
                "warm-prefix-target": "0",
                "warm-ip-target": "1",
                "minimum-ip-target": "3",
                "branch-eni-cooldown": "60",
            },
        )


class OfTheOriginal(unittest.TestCase):
    """The original's values file, every key set: each of them shows."""

    @classmethod
    def setUpClass(cls):
        cls.values = yaml.safe_load(ORIGINAL.read_text())
        cls.objects = rendered("--values", str(ORIGINAL))

    def test_every_variable_is_the_agents(self):
        env = self.objects.env()
        for name, value in self.values["env"].items():
            self.assertEqual(env[name], value)
        for entry in self.values["extraEnv"]:
            self.assertEqual(env[entry["name"]], entry.get("value", entry.get("valueFrom")))

    def test_the_init_container_is_as_it_says(self):
        container = self.objects.container("aws-vpc-cni-init")
        env = self.objects.env("aws-vpc-cni-init")
        self.assertEqual(env["DISABLE_TCP_EARLY_DEMUX"], "true")
        self.assertEqual(env["ENABLE_IPv6"], "false")
        self.assertTrue(container["securityContext"]["privileged"])
        self.assertNotIn("allowPrivilegeEscalation", container["securityContext"])
        self.assertEqual(container["resources"], {"requests": {"cpu": "11m"}})
        self.assertEqual(container["imagePullPolicy"], "Always")

    def test_aws_registry_is_told_to_have_no_image_and_the_default_is_used(self):
        for name in ("aws-node", "aws-vpc-cni-init"):
            self.assertTrue(self.objects.container(name)["image"].startswith("ghcr.io/vpcnet/"))
        told = self.objects.one("DaemonSet")["metadata"]["annotations"]["vpcnet.dev/passed-over"].splitlines()
        self.assertEqual(len(told), 2)
        for path, line in zip(("image", "init.image"), told):
            self.assertTrue(line.startswith(f"{path}: account 918309763551, tag v1.23.1: "), line)
        self.assertNotIn("annotations", rendered().one("DaemonSet")["metadata"])
        # The same is in the notes of the release.
        notes = (CHART / "templates" / "NOTES.txt").read_text()
        self.assertIn('include "aws-vpc-cni.passedOver" .', notes)

    def test_the_policy_agent_is_rendered_as_given(self):
        agent = self.objects.container("aws-eks-nodeagent")
        self.assertEqual(
            agent["image"],
            "918309763551.dkr.ecr.cn-north-1.amazonaws.com.cn/amazon/aws-network-policy-agent:v1.4.2",
        )
        self.assertEqual(
            agent["args"],
            [
                "--enable-ipv6=false",
                "--enable-network-policy=true",
                "--enable-cloudwatch-logs=true",
                "--enable-policy-event-logs=true",
                "--log-file=/var/log/aws-routed-eni/policies.log",
                "--metrics-bind-addr=:18162",
                "--health-probe-bind-addr=:18163",
                "--conntrack-cache-cleanup-period=120",
                "--conntrack-cache-table-size=262144",
                "--log-level=info",
            ],
        )
        self.assertEqual(agent["ports"], [{"containerPort": 18162, "name": "agentmetrics"}])
        self.assertEqual(agent["securityContext"], self.values["nodeAgent"]["securityContext"])
        self.assertEqual(agent["resources"], {"requests": {"cpu": "13m"}})
        mounts = {m["mountPath"] for m in agent["volumeMounts"]}
        self.assertEqual(
            mounts, {"/host/opt/cni/bin", "/sys/fs/bpf", "/var/log/aws-routed-eni", "/var/run/aws-node"}
        )

    def test_the_pod_is_as_it_says(self):
        pod, spec = self.objects.pod(), self.objects.one("DaemonSet")["spec"]
        self.assertEqual(spec["selector"]["matchLabels"], {"k8s-app": "aws-node"})
        self.assertEqual(spec["updateStrategy"], self.values["updateStrategy"])
        for key, value in (
            ("imagePullSecrets", "imagePullSecrets"),
            ("priorityClassName", "priorityClassName"),
            ("securityContext", "podSecurityContext"),
            ("nodeSelector", "nodeSelector"),
            ("tolerations", "tolerations"),
            ("affinity", "affinity"),
        ):
            self.assertEqual(pod[key], self.values[value], key)
        metadata = spec["template"]["metadata"]
        self.assertEqual(metadata["annotations"], self.values["podAnnotations"])
        self.assertEqual(metadata["labels"]["example.com/team"], "blue")
        agent = self.objects.container("aws-node")
        for probe in ("livenessProbe", "readinessProbe"):
            expected = dict(self.values[probe], timeoutSeconds=self.values[f"{probe}TimeoutSeconds"])
            self.assertEqual(agent[probe], expected)
        self.assertEqual(agent["securityContext"]["capabilities"]["add"], ["NET_ADMIN", "NET_RAW"])
        self.assertEqual(agent["resources"], self.values["resources"])
        for name in ("aws-node", "aws-vpc-cni-init"):
            self.assertIn(self.values["extraVolumeMounts"][0], self.objects.container(name)["volumeMounts"])
        self.assertNotIn(
            self.values["extraVolumeMounts"][0], self.objects.container("aws-eks-nodeagent")["volumeMounts"]
        )
        self.assertIn(self.values["extraVolumes"][0], pod["volumes"])

    def test_the_service_account_has_its_name_and_role(self):
        account = self.objects.one("ServiceAccount")["metadata"]
        self.assertEqual(account["name"], "vpc-cni")
        self.assertEqual(account["annotations"], self.values["serviceAccount"]["annotations"])
        self.assertEqual(self.objects.pod()["serviceAccountName"], "vpc-cni")
        self.assertEqual(self.objects.one("ClusterRoleBinding")["subjects"][0]["name"], "vpc-cni")
        # Its extraEnv says ANNOTATE_POD_IP.
        self.assertIn(("", "pods", "patch"), self.objects.rules())

    def test_the_config_maps(self):
        data = self.objects.one("ConfigMap", "amazon-vpc-cni")["data"]
        self.assertEqual(
            list(data.values()), ["true", "true", "true", "4", "5", "6", "90"], "in the order of their keys"
        )
        file = self.objects.one("ConfigMap", "aws-node")["binaryData"]["10-aws.conflist"]
        self.assertEqual(base64.b64decode(file).decode(), self.values["cniConfig"]["fileContents"])
        mount = {"mountPath": "/app/10-aws.conflist", "name": "cni-config", "subPath": "10-aws.conflist"}
        self.assertIn(mount, self.objects.container("aws-node")["volumeMounts"])

    def test_eni_configs(self):
        first = self.objects.one("ENIConfig", "cn-north-1a")["spec"]
        self.assertEqual(first, {"subnet": "subnet-0123456789abcdef0", "securityGroups": ["sg-0123456789abcdef0"]})
        second = self.objects.one("ENIConfig", "cn-north-1b")["spec"]
        self.assertEqual(second, {"subnet": "subnet-0123456789abcdef1"})

    def test_the_pod_monitor(self):
        monitor = self.objects.one("PodMonitor")
        self.assertEqual(monitor["metadata"]["annotations"], {"example.com/note": "b"})
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
        ends = monitor["spec"]["podMetricsEndpoints"]
        self.assertEqual([e["port"] for e in ends], ["metrics", "agentmetrics"])
        for end in ends:
            self.assertEqual((end["interval"], end["scrapeTimeout"]), ("10s", "9s"))
            self.assertEqual(end["relabelings"], self.values["podMonitor"]["relabelings"])

    def test_every_key_changes_something(self):
        """A key that could be left out of the file without a trace would be one that is passed over."""
        whole = self.objects.text
        # Said to be read by nobody; AWS's coordinates of an image that the chart does not take from there.
        known = {"eniConfig.region"}
        known |= {f"{i}.{k}" for i in ("image", "init.image") for k in ("tag", "domain", "region", "endpoint", "account")}
        idle = []
        for path in leaves(self.values):
            values = json.loads(json.dumps(self.values))
            value = take_out(values, path)
            name = ".".join(path)
            if name in known or value in (default_of(path), followed(path)):
                continue
            done = template(values=values)
            # Refused without it: then it is heard.
            if done.returncode == 0 and done.stdout == whole:
                idle.append(name)
        self.assertEqual(idle, [])


def leaves(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict) and len(path) < 2 and value:
            yield from leaves(value, (*path, key))
        elif value is not None:
            yield (*path, key)


def take_out(values, path):
    for key in path[:-1]:
        values = values[key]
    return values.pop(path[-1])


def followed(path):
    """What is taken from the agent's environment where it is left out."""
    return yaml.safe_load(ORIGINAL.read_text())["env"].get(path[-1]) if path[:2] == ("init", "env") else None


def default_of(path):
    found = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return found


class Images(unittest.TestCase):
    def image(self, **image):
        return rendered(values={"image": image}).container("aws-node")["image"]

    def test_where_an_image_comes_from(self):
        self.assertEqual(self.image(override="r.example.com/x@sha256:0"), "r.example.com/x@sha256:0")
        self.assertEqual(self.image(overrideRepository="r.example.com/vpcnet", tag="9"), "r.example.com/vpcnet:9")
        self.assertEqual(
            self.image(account="111122223333", region="eu-west-1", tag="9"),
            "111122223333.dkr.ecr.eu-west-1.amazonaws.com/vpcnet:9",
        )
        self.assertEqual(
            self.image(account=111122223333, endpoint="ecr-fips", domain="amazonaws.com.cn", tag="9"),
            "111122223333.dkr.ecr-fips.us-west-2.amazonaws.com.cn/vpcnet:9",
        )

    def test_the_policy_agent_may_come_from_elsewhere_too(self):
        agent = lambda image: rendered(values={"nodeAgent": {"image": image}}).container("aws-eks-nodeagent")["image"]
        self.assertEqual(agent({"overrideRepository": "r.example.com/npa"}), "r.example.com/npa:v1.4.2")
        self.assertEqual(agent({"override": "r.example.com/npa:1"}), "r.example.com/npa:1")


class WithoutPolicyAgent(unittest.TestCase):
    def test_nothing_of_it_is_left(self):
        objects = rendered("--set", "nodeAgent.enabled=false")
        self.assertIsNone(objects.container("aws-eks-nodeagent"))
        # With it every pod's ADD would be refused: it makes the plugin call who is not there.
        self.assertNotIn("NETWORK_POLICY_ENFORCING_MODE", objects.env())
        self.assertNotIn("bpf", objects.text)
        self.assertNotIn("agentmetrics", rendered("--set", "nodeAgent.enabled=false,podMonitor.create=true").text)


class Families(unittest.TestCase):
    V6 = {"ENABLE_IPv4": "false", "ENABLE_IPv6": "true", "ENABLE_PREFIX_DELEGATION": "true"}

    def test_the_node_is_prepared_for_the_family_that_pods_have(self):
        objects = rendered(values={"env": self.V6})
        self.assertEqual(objects.env("aws-vpc-cni-init")["ENABLE_IPv6"], "true")
        objects = rendered(values={"env": {"ENABLE_V6_EGRESS": True}})
        self.assertEqual(objects.env("aws-vpc-cni-init")["ENABLE_V6_EGRESS"], "true")
        self.assertEqual(objects.env()["ENABLE_V6_EGRESS"], "true")
        objects = rendered(values={"extraEnv": [{"name": "ENABLE_V6_EGRESS", "value": "true"}]})
        self.assertEqual(objects.env("aws-vpc-cni-init")["ENABLE_V6_EGRESS"], "true")


class Refusals(unittest.TestCase):
    """Key, value and reason, and nothing is rendered."""

    def refused(self, values, *words):
        done = template(values=values)
        self.assertNotEqual(done.returncode, 0, done.stdout[:500])
        self.assertEqual(done.stdout.strip(), "")
        for word in words:
            self.assertIn(word, done.stderr)

    def test_policies_that_nobody_would_enforce(self):
        off = {"enabled": False}
        self.refused({"nodeAgent": off, "enableNetworkPolicy": "true"}, "enableNetworkPolicy", '"true"', "enforce")
        self.refused(
            {"nodeAgent": off, "env": {"NETWORK_POLICY_ENFORCING_MODE": "STRICT"}}, "NETWORK_POLICY_ENFORCING_MODE", "strict"
        )
        extra = [{"name": "NETWORK_POLICY_ENFORCING_MODE", "value": "standard"}]
        self.refused({"nodeAgent": off, "extraEnv": extra}, "extraEnv", "standard", "refused")

    def test_the_originals_own_image(self):
        for key in ("override", "overrideRepository"):
            value = "r.example.com/amazon-k8s-cni"
            self.refused({"image": {key: value}}, f"image.{key}", value, "amazon-vpc-cni-k8s")
            self.refused({"init": {"image": {key: value + "-init"}}}, f"init.image.{key}")

    def test_what_the_agent_would_not_start_with(self):
        self.refused({"env": {"ENABLE_POD_ENI": "true"}}, "ENABLE_POD_ENI", '"true"', "not in this version")
        self.refused({"env": {"ENABLE_IPv6": "true"}}, "ENABLE_IPv4", "ENABLE_IPv6", "exactly one")
        self.refused({"env": {"ENABLE_IPv4": "false"}}, "exactly one")
        v6 = dict(Families.V6)
        self.refused({"env": dict(v6, ENABLE_PREFIX_DELEGATION="false")}, "ENABLE_PREFIX_DELEGATION", '"false"')
        self.refused({"env": dict(v6, AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG="1")}, "custom networking", "IPv4")
        self.refused({"env": dict(v6, AWS_VPC_ENI_MTU="1279")}, "AWS_VPC_ENI_MTU", "1279", "1280 to 9001")
        self.refused({"env": {"POD_MTU": 9002}}, "POD_MTU", "9002", "576 to 9001")
        self.refused(
            {"env": {"ENABLE_PREFIX_DELEGATION": "true", "WARM_PREFIX_TARGET": "0"}}, "WARM_PREFIX_TARGET", "not start"
        )

    def test_two_words_about_one_thing(self):
        self.refused(
            {"env": Families.V6, "init": {"env": {"ENABLE_IPv6": "false"}}}, "init.env.ENABLE_IPv6", '"false"', '"true"'
        )
        self.refused(
            {"extraEnv": [{"name": "WARM_ENI_TARGET", "value": "2"}]}, "WARM_ENI_TARGET", "env", "extraEnv"
        )
        self.refused({"nodeAgent": {"healthProbeBindAddr": "8162"}}, "healthProbeBindAddr", "8162")

    def test_what_is_half_said(self):
        self.refused({"cniConfig": {"enabled": True}}, "cniConfig.fileContents")
        self.refused({"eniConfig": {"create": True}}, "eniConfig.subnets")
        self.refused({"eniConfig": {"create": True, "subnets": {"a": {"id": "10.0.0.0/8"}}}}, "subnets", "id")

    def test_values_of_a_wrong_kind(self):
        self.refused({"env": {"ENABLE_PREFIX_DELEGATION": "yes"}}, "ENABLE_PREFIX_DELEGATION")
        self.refused({"env": {"WARM_IP_TARGET": "-1"}}, "WARM_IP_TARGET")
        self.refused({"env": {"AWS_VPC_K8S_CNI_VETHPREFIX": "eth"}}, "VETHPREFIX")
        self.refused({"env": {"AWS_VPC_K8S_PLUGIN_LOG_FILE": "stdout"}}, "PLUGIN_LOG_FILE")
        self.refused({"env": {"NETWORK_POLICY_ENFORCING_MODE": "on"}}, "NETWORK_POLICY_ENFORCING_MODE")
        self.refused({"nodeAgent": {"conntrackCacheTableSize": 1000}}, "conntrackCacheTableSize")
        self.refused({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy")

    def test_keys_that_nobody_knows(self):
        self.refused({"warmEniTarget": 1}, "warmEniTarget")
        self.refused({"init": {"enviroment": {}}}, "enviroment")


class Manifests(unittest.TestCase):
    @unittest.skipUnless(MANIFEST_CHECK, "no program to judge manifests")
    def test_kubernetes_own_types_take_every_object(self):
        for args in ([], ["--values", str(ORIGINAL)], ["--set", "nodeAgent.enabled=false"]):
            text = rendered(*args).text
            done = subprocess.run([MANIFEST_CHECK], input=text, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_plain_manifest_is_what_the_chart_renders(self):
        done = subprocess.run(
            [str(DEPLOY.parent / "scripts" / "render-manifest"), HELM, "-"], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((DEPLOY / "aws-k8s-cni.yaml").read_text(), done.stdout)


if __name__ == "__main__":
    unittest.main()
