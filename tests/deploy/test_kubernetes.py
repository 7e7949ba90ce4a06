"""The manifests: what kubectl makes of them is kept, fits Kubernetes' own schema, and asks for no more than it must.

Nothing here has a cluster. The chart was rendered by tests/doubles/helm_template.go, which CI doesn't build: a chart
that has changed since is found by its digest.
"""

import hashlib
import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from wattribute.agent.config import load

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/deploy"
CHART = ROOT / "deploy/helm/wattribute"
OVERLAYS = {
    "base": "base",
    "gpu-operator": "overlays/gpu-operator",
    "prometheus-operator": "overlays/prometheus-operator",
}
RENDERED = {"helm": [], "helm-all": ["tests/fixtures/helm_values.yaml"]}
ELSEWHERE = ("cert-manager.io/", "monitoring.coreos.com/")  # custom resources: the cluster's own operators know them
ROOTS_RIGHTS = ["CHOWN", "SETGID", "SETUID"]
Manifest = dict[str, Any]


@cache
def manifests(name: str) -> list[Manifest]:
    return [found for found in yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()) if found]


def of_kind(name: str, kind: str) -> Iterator[Manifest]:
    return (found for found in manifests(name) if found["kind"] == kind)


def chart_digest() -> str:
    """Of everything that a rendering comes from."""
    files = sorted(path for path in CHART.rglob("*") if path.is_file() and path.name != "NOTES.txt")
    digest = hashlib.sha256()
    for path in [*files, *(ROOT / name for names in RENDERED.values() for name in names)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_kept_is_what_kubectl_makes(name: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here, and Debian's is older than components: what is kept is tested all the same")
    command = ["kubectl", "kustomize", str(ROOT / "deploy/kubernetes" / OVERLAYS[name])]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert made == (GOLDEN / f"{name}.yaml").read_text(), "render it anew"


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_kept_of_the_chart_is_of_the_chart_as_it_is(name: str) -> None:
    head = (GOLDEN / f"{name}.yaml").read_text().partition("\n")[0]
    assert head == f"# sha256 of the chart: {chart_digest()}", "render it anew with tests/doubles/helm_template.go"


@pytest.mark.parametrize("name", [*OVERLAYS, *RENDERED])
def test_all_fits_the_schema_of_kubernetes(name: str) -> None:
    schema = json.loads((ROOT / "tests/fixtures/kubernetes_schema.json").read_text())
    names = set()
    for manifest in manifests(name):
        kind = manifest["kind"]
        names.add((kind, manifest["metadata"]["name"]))
        if manifest["apiVersion"].startswith(ELSEWHERE):
            continue
        checker = Draft202012Validator({"$ref": schema["kinds"][kind], "$defs": schema["$defs"]})
        assert [error.message for error in checker.iter_errors(manifest)] == []
    assert len(names) == len(manifests(name))


@pytest.mark.parametrize("name", [*OVERLAYS, *RENDERED])
def test_no_pod_is_privileged_and_only_its_own_places_can_be_written(name: str) -> None:
    for daemons in of_kind(name, "DaemonSet"):
        spec = daemons["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        rights = container["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"], "add": ROOTS_RIGHTS}
        assert (rights["privileged"], rights["allowPrivilegeEscalation"]) == (False, False)
        assert rights["readOnlyRootFilesystem"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert container["image"].rpartition(":")[2] not in ("", "latest")
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        written = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written == {"state", "socket"}
        assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
        paths = {volume["hostPath"]["path"] for volume in volumes.values() if "hostPath" in volume}
        assert paths == {"/sys", "/etc/machine-id", "/var/lib/wattribute", "/run/wattribute"}
        assert "livenessProbe" in container


@pytest.mark.parametrize("name", [*OVERLAYS, *RENDERED])
def test_all_that_is_named_is_there(name: str) -> None:
    config_maps = {found["metadata"]["name"] for found in of_kind(name, "ConfigMap")}
    secrets = {found["spec"]["secretName"] for found in of_kind(name, "Certificate")} or {"wattribute-web"}
    accounts = {found["metadata"]["name"] for found in of_kind(name, "ServiceAccount")}
    for daemons in of_kind(name, "DaemonSet"):
        labels = daemons["spec"]["template"]["metadata"]["labels"]
        assert daemons["spec"]["selector"]["matchLabels"].items() <= labels.items()
        (service,) = of_kind(name, "Service")
        assert service["spec"]["selector"].items() <= labels.items()
        spec = daemons["spec"]["template"]["spec"]
        assert spec["serviceAccountName"] in accounts
        for volume in spec["volumes"]:
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                if "configMap" in source:
                    assert source["configMap"]["name"] in config_maps
                if "secret" in source:
                    assert source["secret"].get("secretName", source["secret"].get("name")) in secrets
    for monitor in of_kind(name, "ServiceMonitor"):
        (service,) = of_kind(name, "Service")
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] == service["spec"]["ports"][0]["name"]
        tls = endpoint["tlsConfig"]
        assert {tls["ca"]["secret"]["name"], tls["cert"]["secret"]["name"], tls["keySecret"]["name"]} <= secrets


@pytest.mark.parametrize(("name", "rights"), [("base", ["nodes/pods"]), ("helm-all", ["nodes/proxy"])])
def test_the_agent_may_ask_its_kubelet_and_nobody_else(name: str, rights: list[str]) -> None:
    (role,) = of_kind(name, "ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": rights, "verbs": ["get"]}]
    (binding,) = of_kind(name, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_every_node_has_one_agent_and_gpu_nodes_the_one_with_nvml() -> None:
    plain, gpu = (
        daemons["spec"]["template"]["spec"]
        for daemons in sorted(of_kind("gpu-operator", "DaemonSet"), key=lambda found: found["metadata"]["name"])
    )
    (term,) = plain["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]}]
    assert "affinity" not in gpu
    assert gpu["nodeSelector"].items() - plain["nodeSelector"].items() == {
        ("nvidia.com/gpu.present", "true"),
        ("nvidia.com/gpu.deploy.client", "true"),
    }
    assert (gpu["runtimeClassName"], "runtimeClassName" in plain) == ("nvidia", False)


@pytest.mark.parametrize(("kustomized", "charted"), [("base", "helm"), ("gpu-operator", "helm-all")])
def test_the_chart_says_the_same(kustomized: str, charted: str) -> None:
    ours = {found["metadata"]["name"]: found["spec"] for found in of_kind(kustomized, "DaemonSet")}
    theirs = {found["metadata"]["name"]: found["spec"] for found in of_kind(charted, "DaemonSet")}
    assert ours.keys() == theirs.keys()
    for name, spec in ours.items():
        assert comparable(spec) == comparable(theirs[name])
    assert config_of(kustomized) == config_of(charted)


def comparable(spec: Manifest) -> Manifest:
    """A DaemonSet's spec less what a chart must have of its own: labels, pull settings, names made of a digest."""
    pod = dict(spec["template"]["spec"])
    pod.pop("imagePullSecrets", None)
    pod["containers"] = [{k: v for k, v in one.items() if k != "imagePullPolicy"} for one in pod["containers"]]
    pod["volumes"] = {one["name"]: one for one in pod["volumes"] if one["name"] not in ("config", "web")}
    return {"pod": pod, "update": spec["updateStrategy"]}


def config_of(name: str) -> dict[str, Any]:
    """The agent's configuration, without what is said about it."""
    texts = [one["data"]["wattribute.toml"] for one in of_kind(name, "ConfigMap") if "wattribute.toml" in one["data"]]
    (text,) = texts
    return tomllib.loads(text)


def test_the_charts_values_fit_their_schema_and_a_misspelt_one_does_not() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    Draft7Validator.check_schema(schema)
    checker = Draft7Validator(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert list(checker.iter_errors(values)) == []
    assert list(checker.iter_errors(yaml.safe_load((ROOT / "tests/fixtures/helm_values.yaml").read_text()))) == []
    assert schema["properties"].keys() - {"global"} == values.keys()
    for wrong in ({"gpu": {"enable": True}}, {"port": 0}, {"serviceMonitor": {"interval": "often"}}):
        assert list(checker.iter_errors(wrong))


def test_the_configuration_is_one_that_the_agent_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "deploy/kubernetes/base/wattribute.toml").read_text()
    web = tmp_path / "web.yml"
    web.write_text("basic_auth_users: {prometheus: $2b$10$abcdefghijklmnopqrstuuIDGYGVGe9UpiVs3jvhmGxi5mFsVzmAO}\n")
    config = tmp_path / "wattribute.toml"
    config.write_text(text.replace("/etc/wattribute-web/web.yml", str(web)))
    loaded = load(config, {"WATTRIBUTE_AGENT__LISTEN": "10.1.2.3:19917"}, {}).config
    assert (loaded.paths.sys, loaded.paths.cgroup) == ("/host/sys", "/host/sys/fs/cgroup")
    assert loaded.web.config_file == str(web)
