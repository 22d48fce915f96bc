"""What is shipped for deployment is right by the schemas of those who read it: Kubernetes, its operator, Compose."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mppobs.instrument.settings import from_environment
from mppobs.render.dashboards.sources import SOURCES
from tests import servers
from tests.test_runbooks import check_command

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.33")
"""The first with native sidecars, and a current one."""
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"

Object = dict[str, Any]


def objects() -> Iterator[tuple[Path, Object]]:
    """Yield every Kubernetes object that is shipped, with its file."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and "kind" in document and document["kind"] != "Kustomization":
                yield path, document


OBJECTS = [pytest.param(each, id=f"{path.stem}-{each['kind']}-{each['metadata']['name']}") for path, each in objects()]
PODS = [
    pytest.param(each["spec"]["template"]["spec"], id=each["metadata"]["name"])
    for _, each in objects()
    if each["kind"] in ("StatefulSet", "Job", "DaemonSet")
]


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty directory to fetch Go modules from."""
    return tmp_path_factory.mktemp("modules")


def module(name: str, directory: Path) -> Path:
    """Return where a Go module lies, fetched through the module proxy; where that fails, see `servers.require`."""
    go = servers.require("go", "golang")
    done = subprocess.run([go, "mod", "download", "-json", name], cwd=directory, capture_output=True, text=True)
    if done.returncode:
        reason = f"{name} could not be fetched: {done.stdout or done.stderr}"
        pytest.fail(reason) if os.environ.get("REQUIRE_SERVERS") else pytest.skip(reason)
    return Path(json.loads(done.stdout)["Dir"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("body", OBJECTS)
def test_objects_are_what_kubernetes_takes(body: Object, version: str) -> None:
    """Every object of Kubernetes' own kinds passes its schema, with no key too many."""
    if not body["apiVersion"].startswith("monitoring.coreos.com"):
        kubernetes_validate.validate(body, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError, match="metdata"):
            kubernetes_validate.validate({**body, "metdata": {}}, version, strict=True)


@pytest.mark.parametrize("plural", ["podmonitors", "prometheusrules"])
def test_objects_are_what_the_operator_takes(plural: str, modules: Path) -> None:
    """Objects of prometheus-operator pass the schema of its own definitions, with no key too many."""
    crds = module(OPERATOR, modules) / "example" / "prometheus-operator-crd"
    definition = yaml.safe_load((crds / f"monitoring.coreos.com_{plural}.yaml").read_text())
    schema = closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    kind = definition["spec"]["names"]["kind"]
    found = [body for _, body in objects() if body["kind"] == kind]

    assert found
    for body in found:
        jsonschema.validate(body["spec"], schema)
        with pytest.raises(jsonschema.ValidationError, match="selektor"):
            jsonschema.validate({**body["spec"], "selektor": {}}, schema)


def closed(schema: Any) -> Any:
    """Return a schema in which objects with named properties take no others."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(made.get("pattern"), str):  # Go takes a flag anywhere, Python at the start alone
        made["pattern"] = re.sub(r"^\^\(\?i\)", "(?i)^", made["pattern"])
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def test_compose_file_is_what_compose_takes(modules: Path) -> None:
    """The compose file passes the schema of the specification."""
    schema = json.loads((module(COMPOSE, modules) / "schema" / "compose-spec.json").read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    jsonschema.validate(compose, schema)
    compose["services"]["aggregator"]["prots"] = ["8080:8080"]
    with pytest.raises(jsonschema.ValidationError, match="prots"):
        jsonschema.validate(compose, schema)


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_hardened(pod: Object) -> None:
    """No container runs as root, writes to its own file system or has a capability; each says what it needs."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        if container["name"] != "own-directory":
            assert "runAsUser" not in security
            assert "add" not in security["capabilities"]


def test_workers_and_agent_share_the_journals() -> None:
    """Worker and agent of a pod mount one directory; the agent is a sidecar, which ends after the worker."""
    job = next(body for _, body in objects() if body["kind"] == "Job")["spec"]["template"]["spec"]
    agent, worker = job["initContainers"][0], job["containers"][0]
    mounted = [
        {mount["name"]: mount["mountPath"] for mount in each["volumeMounts"]}["journals"] for each in (agent, worker)
    ]
    environ = {entry["name"]: entry.get("value", "node-1") for entry in worker["env"]}
    environ["MPPOBS_ATTEMPT"] = "0"

    assert mounted == ["/var/run/mppobs"] * 2
    assert agent["restartPolicy"] == "Always"
    assert f"--directory={mounted[0]}" in agent["args"]
    assert from_environment(environ).directory == Path(mounted[1])


def test_kustomizations_name_every_file() -> None:
    """What lies beside a kustomization is part of it, and what it names is there."""
    for path in KUBERNETES.glob("*/kustomization.yaml"):
        body = yaml.safe_load(path.read_text())
        generated = [entry.split("=")[-1] for each in body.get("configMapGenerator", []) for entry in each["files"]]
        named = {*body["resources"], *generated, "kustomization.yaml"}
        there = {str(each.relative_to(path.parent)) for each in path.parent.rglob("*.yaml")}
        assert named == there, path


def test_copies_are_those_of_the_examples() -> None:
    """What a kustomization must have below itself is what the examples say; rules are generated from them."""
    for name in ("slo.yaml", "prices.yaml"):
        assert (KUBERNETES / "base" / name).read_bytes() == (ROOT / "examples" / name).read_bytes()


def test_rules_for_the_operator_are_as_generated(tmp_path: Path) -> None:
    """`make generated` would write the same rules again."""
    command = [
        sys.executable, "-m", "mppobs.cli.main", "generate", "examples/slo.yaml", "--out", str(tmp_path),
        "--format", "kubernetes", "--runbooks", "http://mppobs-aggregator.mppobs:9466/runbooks",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "rules").iterdir()}
    assert made == {path.name: path.read_text() for path in (KUBERNETES / "base" / "rules").iterdir()}


def test_compose_mounts_what_there_is() -> None:
    """Every file and directory that the compose file mounts is part of the project, but the secrets."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())]
    for source in mounts:
        if source.startswith(".") and "secrets" not in source:
            assert (DEPLOY / source).exists(), source
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_runs_what_there_is() -> None:
    """The commands of the demo's workers are commands, with options, workloads and faults that exist."""
    workers = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["workers"]
    commands = re.findall(r"mppobs run [^;]+", workers["command"][0])
    assert len(commands) == 2
    for command in commands:
        check_command(command)


def test_grafana_finds_the_dashboards_and_their_datasource() -> None:
    """The provisioned home page and datasource are those that are generated."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).name
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/mppobs.yaml").read_text())["providers"][0]
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/mppobs.yaml").read_text())["datasources"]

    assert (ROOT / "dashboards" / home).exists()
    assert len(list((ROOT / "dashboards").glob("*.json"))) == len(SOURCES)
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert {each["type"] for each in sources} >= {"prometheus", "alertmanager"}
    assert len({each["uid"] for each in sources}) == len(sources)


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_start_what_they_checked(path: Path) -> None:
    """A unit checks its settings before it starts, runs as nobody in particular, and comes back when it dies."""
    lines = path.read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))
    assert settings["ExecStartPre"] == settings["ExecStart"] + " --check"
    assert settings["User"] == "mppobs"
    assert settings["Restart"] == "always"
    assert settings["ProtectSystem"] == "strict"
    assert int(settings["TimeoutStopSec"]) > 5


def test_image_runs_as_nobody_in_particular() -> None:
    """The image's user is not root, and is the one whom the pods name."""
    text = (DEPLOY / "Dockerfile").read_text()
    users = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert users == [("10001", "10001")]
    for name in re.findall(r"^COPY (?!--from)([\w. ]+) \S+$", text, re.MULTILINE):
        assert all((ROOT / each).exists() for each in name.split())
