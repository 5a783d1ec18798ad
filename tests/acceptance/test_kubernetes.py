"""The Kubernetes manifests: valid, as confined as the compose file, and of the same processes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rmos_runs.local.processes import PROCESSES
from rmos_shared.settings.variables import variables
from rmos_shared.tasks.table import AUDIT_QUEUE, BACKGROUND_QUEUE, QUEUES

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ops/kubernetes/base"
EXAMPLE = ROOT / "ops/kubernetes/overlays/example"
HOWTO = ROOT / "docs/how-to/kubernetes.md"
COMPOSE = ROOT / "docker-compose.yml"
VERSION = "1.37"
#: Not Kubernetes' own: their schemas come with KEDA and kustomize.
_FOREIGN = {"ScaledObject", "Kustomization"}

Manifest = dict[str, Any]


def manifests(folder: Path) -> list[Manifest]:
    return [
        document
        for file in sorted(folder.glob("*.yaml"))
        if file.name != "kustomization.yaml"
        for document in yaml.safe_load_all(file.read_text())
    ]


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return manifests(BASE)


@pytest.fixture(scope="module")
def pods(base: list[Manifest]) -> dict[str, Manifest]:
    """By name, the specification of each pod."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in base
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}
    }


@pytest.fixture(scope="module")
def services() -> Manifest:
    """The services of the compose file."""
    loaded: Manifest = yaml.safe_load(COMPOSE.read_text())["services"]
    return loaded


def of_kind(documents: list[Manifest], kind: str) -> list[Manifest]:
    return [document for document in documents if document["kind"] == kind]


def valid(documents: list[Manifest]) -> None:
    seen = set()
    for document in documents:
        if document["kind"] not in _FOREIGN:
            kubernetes_validate.validate(document, VERSION, strict=True)
        name = (document["kind"], document["metadata"]["name"])
        assert name not in seen
        seen.add(name)


def test_every_manifest_is_what_its_kind_allows(base: list[Manifest]) -> None:
    valid(base)
    with pytest.raises(kubernetes_validate.ValidationError):
        valid([{**base[0], "spec": {**base[0]["spec"], "accessMode": "none"}}])


def test_the_overlay_renders_to_valid_manifests_in_its_namespace(base: list[Manifest]) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    done = subprocess.run(
        ["kubectl", "kustomize", str(EXAMPLE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, "kustomize calls something deprecated"
    rendered = list(yaml.safe_load_all(done.stdout))
    valid(rendered)
    assert len(rendered) == len(base) + 2
    for document in rendered:
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "rmos", document["metadata"]["name"]
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert images == {"redis:8", "registry.example/rmos-runs:0.1.0"}
    runs = next(
        one for one in of_kind(rendered, "PersistentVolumeClaim") if one["metadata"]["name"] == "runs"
    )
    assert runs["spec"]["storageClassName"] == "fast-retain"
    assert runs["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_kustomize_takes_every_file() -> None:
    for folder in (BASE, EXAMPLE):
        told = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = {*told["resources"], *(one["path"] for one in told.get("patches", []) if "path" in one)}
        files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert named - {"../../base"} == files


def test_the_same_processes_run_as_under_compose(pods: dict[str, Manifest], services: Manifest) -> None:
    assert set(pods) == set(services) == {"redis", "runs-store", *PROCESSES}
    consumed: list[str] = []
    for name, pod in pods.items():
        (container,) = pod["containers"]
        if name == "redis":
            for flag in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"):
                assert flag in container["command"][-1]
            continue
        assert container["command"] == services[name]["command"], name
        if "-Q" in container["command"]:
            consumed += container["command"][container["command"].index("-Q") + 1].split(",")
    assert sorted(consumed) == sorted(QUEUES)


def test_a_stop_has_the_time_that_compose_gives_it(pods: dict[str, Manifest], services: Manifest) -> None:
    for name, pod in pods.items():
        if name != "runs-store":
            grace = int(services[name]["stop_grace_period"].removesuffix("s"))
            assert pod["terminationGracePeriodSeconds"] == grace, name


def test_no_pod_is_more_than_a_process_needs(pods: dict[str, Manifest]) -> None:
    for name, pod in pods.items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        assert container["resources"]["requests"]["memory"], name


def test_every_process_that_serves_is_watched(pods: dict[str, Manifest]) -> None:
    for name, pod in pods.items():
        (container,) = pod["containers"]
        if name == "runs-store":
            continue
        kinds = ("startupProbe", "livenessProbe", "readinessProbe")
        probes = [container[kind] for kind in kinds if kind in container]
        assert "livenessProbe" in container, name
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for probe in probes:
            if "httpGet" in probe:
                assert probe["httpGet"]["port"] in ports, name
        if name.startswith("worker-") or name == "gateway":
            assert container["livenessProbe"]["httpGet"]["path"] == "/livez", name
    gateway = pods["gateway"]["containers"][0]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz", (
        "without store or broker it gets no calls"
    )


def environment(pod: Manifest) -> dict[str, Any]:
    return {
        one["name"]: one.get("value", one.get("valueFrom")) for one in pod["containers"][0].get("env", [])
    }


def test_settings_are_known_and_secrets_come_from_one_secret(pods: dict[str, Manifest]) -> None:
    keys = set()
    for name, pod in pods.items():
        told = environment(pod)
        for variable, value in told.items():
            assert variable in variables() or not variable.startswith("RMOS_"), f"{name}: {variable}"
            if re.search("PASSWORD|TOKEN|AUTH", variable):
                assert value["secretKeyRef"]["name"] == "rmos", f"{name}: {variable}"
                keys.add(value["secretKeyRef"]["key"])
            elif variable == "RMOS_AUDIT_KEY":
                assert name == "worker-audit", "nobody else needs it"
                assert value["secretKeyRef"] == {"name": "rmos-audit", "key": "key.pem", "optional": True}
            else:
                assert isinstance(value, str), "kubernetes expands $(REDIS_PASSWORD) in plain values alone"
        if "RMOS_BROKER_URL" in told:
            assert list(told).index("REDIS_PASSWORD") < list(told).index("RMOS_BROKER_URL"), name
    made = set(re.findall(r"--from-literal=([\w-]+)=", HOWTO.read_text()))
    assert made == keys, "the page says how each is made"


def test_what_is_mounted_is_claimed_and_what_uses_the_runs_is_on_one_machine(
    base: list[Manifest], pods: dict[str, Manifest]
) -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind(base, "PersistentVolumeClaim")}
    mounted = set()
    for name, pod in pods.items():
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        }
        mounted |= used
        assert ("affinity" in pod) == bool(used & {"runs", "index"}), name
    assert mounted == claims
    together = {
        one["metadata"]["name"]
        for one in base
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}
        and one["spec"]["template"]["metadata"]["labels"].get("rmos/uses") == "runs"
    }
    assert together == {name for name, pod in pods.items() if "affinity" in pod}
    # Two at once would fight over a volume, or do everything twice.
    for one in of_kind(base, "Deployment"):
        if one["metadata"]["name"] in {"advisory-store", "beat", "indexer"}:
            assert (one["spec"]["replicas"], one["spec"]["strategy"]["type"]) == (1, "Recreate")


def test_workers_scale_by_what_is_ready_in_the_ledger(base: list[Manifest]) -> None:
    asked = []
    for scaled in of_kind(base, "ScaledObject"):
        spec = scaled["spec"]
        assert spec["scaleTargetRef"]["name"] == scaled["metadata"]["name"]
        assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
        assert spec["fallback"]["replicas"] == 1, "without an answer the work goes on"
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "prometheus", "the length of a list in Redis is not what is ready"
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        asked += re.findall(r'rmos_queue_ready_jobs\{queue="([\w.]+)"\}', trigger["metadata"]["query"])
    assert sorted(asked) == sorted({*QUEUES} - {BACKGROUND_QUEUE, AUDIT_QUEUE})
    deployments = {one["metadata"]["name"]: one["spec"] for one in of_kind(base, "Deployment")}
    for scaled in of_kind(base, "ScaledObject"):
        assert "replicas" not in deployments[scaled["metadata"]["name"]], "an apply would undo the scaling"


def allowed(base: list[Manifest], side: str) -> Iterator[tuple[str, Manifest]]:
    for policy in of_kind(base, "NetworkPolicy"):
        for rule in policy["spec"].get(side, []):
            yield policy["metadata"]["name"], rule


def test_the_network_is_closed_but_for_what_is_needed(
    base: list[Manifest], pods: dict[str, Manifest]
) -> None:
    nothing = next(one for one in of_kind(base, "NetworkPolicy") if one["metadata"]["name"] == "nothing")
    assert nothing["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, rule in [*allowed(base, "ingress"), *allowed(base, "egress")]:
        assert rule["ports"], name
        assert rule.get("from") or rule.get("to"), name
    outside = [name for name, rule in allowed(base, "egress") if any("ipBlock" in to for to in rule["to"])]
    assert outside == ["webhooks"]
    selected = {
        value
        for policy in of_kind(base, "NetworkPolicy")
        for expression in policy["spec"]["podSelector"].get("matchExpressions", [])
        for value in expression["values"]
    }
    assert selected <= set(pods)
    needs_broker = {name for name, pod in pods.items() if "RMOS_BROKER_URL" in environment(pod)}
    (to_redis,) = (one for one in of_kind(base, "NetworkPolicy") if one["metadata"]["name"] == "to-redis")
    assert {*to_redis["spec"]["podSelector"]["matchExpressions"][0]["values"]} == needs_broker
