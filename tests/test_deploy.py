"""The files of deploy/: what Python and the linters can say without building an image."""

import base64
import copy
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mrf.cli.main import parser
from mrf.cli.reconstruct import _METHODS
from mrf.server.asked import Asked, Menu
from mrf.server.images import KINDS

from .ports import free_ports

jsonschema = pytest.importorskip("jsonschema", reason="labels are checked with jsonschema")
yaml = pytest.importorskip("yaml", reason="compose files are read with PyYAML")

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
LABEL = json.loads((DEPLOY / "openrecon" / "OpenReconLabel.json").read_text())
RULES = json.loads((DEPLOY / "openrecon" / "label_rules.json").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
KEY = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "openrecon" / "Dockerfile").read_text()
    text = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def last(name: str) -> str:
    return [told for instruction, told in instructions() if instruction == name][-1]


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def checked(*command: str, **environment: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_label_keeps_the_rules() -> None:
    jsonschema.Draft7Validator.check_schema(RULES)
    jsonschema.validate(LABEL, RULES, cls=jsonschema.Draft7Validator)
    for parameter in LABEL["parameters"]:
        if parameter["type"] == "choice":
            assert parameter["default"] in [value["id"] for value in parameter["values"]]
        elif parameter["type"] in ("int", "double"):
            assert parameter["minimum"] <= parameter["default"] <= parameter["maximum"]
    assert len({parameter["id"] for parameter in LABEL["parameters"]}) == len(LABEL["parameters"])


def test_label_keeps_the_official_schema() -> None:
    schema = os.environ.get("MRF_OPENRECON_SCHEMA")
    if not schema:
        pytest.skip("MRF_OPENRECON_SCHEMA does not name the vendor's schema file")
    jsonschema.validate(LABEL, json.loads(Path(schema).read_text()), cls=jsonschema.Draft7Validator)


def changed(part: str, index: int | str, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda label: label[part][index].update(values)


def dropped(part: str, index: int | str, name: str) -> Callable[[dict[str, Any]], None]:
    return lambda label: label[part][index].pop(name) and None


def too_many(label: dict[str, Any]) -> None:
    label["parameters"] = [label["parameters"][2] | {"id": f"p{n}"} for n in range(15)]


@pytest.mark.parametrize(
    "spoil",
    [
        changed("reconstruction", "transfer_protocol", version="2.1.0"),
        lambda label: label["reconstruction"].update(emitter="image", injector="compleximage"),
        lambda label: label["reconstruction"].pop("port"),
        lambda label: label["general"].update(version="0.1"),
        lambda label: label["general"].update(licence="x"),
        lambda label: label.pop("parameters"),
        too_many,
        changed("parameters", 0, id="mask_threshold"),
        changed("parameters", 0, type="list"),
        changed("parameters", 0, note="x"),
        dropped("parameters", 0, "values"),
        dropped("parameters", 6, "minimum"),
        dropped("parameters", 6, "unit"),
        changed("parameters", 6, default=0.05),
        changed("parameters", 6, unit={"en": "secs"}),
        changed("parameters", 6, type="int"),
        changed("parameters", 2, default=3),
    ],
)
def test_rules_refuse_wrong_labels(spoil: Callable[[dict[str, Any]], None]) -> None:
    label = copy.deepcopy(LABEL)
    label["parameters"][6]["minimum"] = 0.5
    jsonschema.validate(label, RULES, cls=jsonschema.Draft7Validator)
    spoil(label)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(label, RULES, cls=jsonschema.Draft7Validator)


def test_the_server_obeys_every_parameter_of_the_label() -> None:
    values = {parameter["id"]: parameter["default"] for parameter in LABEL["parameters"]}
    asked, notes = Menu().parameters(Asked(), json.dumps({"parameters": values}))
    assert notes == []
    assert asked.images == values["images"]
    assert asked.maps == tuple(values["maps"].split(","))
    assert asked.deadline == values["deadline"]
    assert asked.recipe.method == values["method"]
    assert asked.recipe.mask_threshold == float(values["maskthreshold"])
    assert (asked.sequence, asked.recipe.slice_profile) == ("", Asked().recipe.slice_profile)  # empty: as it was
    values |= {"sequence": "jiang2015_fisp", "sliceprofile": "slr:4", "method": "gridding", "maskthreshold": "0.2"}
    asked, notes = Menu().parameters(Asked(), json.dumps({"parameters": values}))
    assert notes == []
    assert (asked.sequence, asked.recipe.slice_profile, asked.recipe.method) == ("jiang2015_fisp", "slr:4", "gridding")
    assert asked.recipe.mask_threshold == 0.2
    choices = {
        parameter["id"]: {value["id"] for value in parameter["values"]}
        for parameter in LABEL["parameters"]
        if parameter["type"] == "choice"
    }
    assert choices["images"] == set(KINDS)
    assert choices["method"] <= set(_METHODS)


def test_versions_agree() -> None:
    general = LABEL["general"]
    assert general["version"] == general["regulatory_information"]["production_identifier"] == VERSION
    assert general["regulatory_information"]["material_number"].endswith(VERSION)
    assert COMPOSE["services"]["mrf"]["image"] == f"mrf-engine:{VERSION}"
    assert f"mrf-engine:{VERSION}" in (DEPLOY / "README.md").read_text()


def test_dockerfile() -> None:
    stages: set[str] = set()
    for name, told in instructions():
        if name == "FROM":
            image, *rest = told.split()
            assert re.search(r":\d+\.\d+", image), f"{image} has no version"
            stages |= set(rest[1:])
        elif name == "COPY" and not told.startswith(("--from", ". ")):
            assert (ROOT / told.split()[0]).is_file()
    assert stages == {"build"}
    assert last("USER") == "10001:10001"
    started = json.loads(last("ENTRYPOINT"))
    asked = parser().parse_args(started[1:])
    assert (started[0], asked.verb, asked.host) == ("mrf", "serve", "0.0.0.0")
    default = parser().parse_args(["serve"])
    assert asked.port == default.port == int(last("EXPOSE")) == LABEL["reconstruction"]["port"]
    assert default.host == "127.0.0.1"
    probe = json.loads(last("HEALTHCHECK").split("CMD", 1)[1])
    assert probe[1:] == ["/opt/mrf/health.py", "127.0.0.1", str(asked.port)]
    assert f"deploy/openrecon/health.py {probe[1]}" in last("COPY")
    kept = (DEPLOY / "openrecon" / "Dockerfile.dockerignore").read_text().split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = project["tool"]["setuptools"]["package-dir"].values()
    for needed in ("mrf", "pyproject.toml", project["project"]["readme"], "LICENSE", *folders):
        assert f"!{needed}" in kept


def test_compose_is_for_this_machine_only() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"mrf", "orthanc"}
    for service in services.values():
        assert re.search(r":\d+\.\d+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert not {"privileged", "network_mode", "pid", "environment"} & set(service)
        for volume in service["volumes"]:
            assert volume.split(":")[0] in COMPOSE["volumes"]
    build = services["mrf"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "openrecon" / "Dockerfile"
    assert services["mrf"]["ports"] == [f"127.0.0.1:{LABEL['reconstruction']['port']}:9002"]
    assert services["orthanc"]["healthcheck"]["test"][0] == "CMD"
    told = json.loads((DEPLOY / COMPOSE["secrets"]["orthanc.json"]["file"]).read_text())
    assert {f"127.0.0.1:{told[name]}:{told[name]}" for name in ("HttpPort", "DicomPort")} == set(
        services["orthanc"]["ports"]
    )
    assert told["AuthenticationEnabled"] is True
    assert "RegisteredUsers" not in told
    assert COMPOSE["secrets"]["users.json"]["file"].startswith("${ORTHANC_USERS:?")


def test_hadolint() -> None:
    checked(program("hadolint"), str(DEPLOY / "openrecon" / "Dockerfile"))


def test_yamllint() -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    checked(program("yamllint"), "--strict", "-d", rules, str(DEPLOY / "compose.yaml"))


def test_compose_specification() -> None:
    command = program("check-jsonschema")
    checked(command, "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def test_docker_compose(tmp_path: Path) -> None:
    docker = program("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode:
        pytest.skip("docker has no compose here")
    users = tmp_path / "users.json"
    users.write_text("{}")
    checked(docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet", ORTHANC_USERS=str(users))


def test_readme_says_what_to_do_and_what_was_not_done() -> None:
    text = (DEPLOY / "README.md").read_text()
    (build,) = (block for block in text.split("\n\n") if block.lstrip().startswith("docker build"))
    words = shlex.split(re.sub(r"\s+#.*", "", build).replace("\\\n", " "))
    assert words[-1] == "."
    assert words[words.index("-f") + 1] == "deploy/openrecon/Dockerfile"
    assert words[words.index("--label") + 1] == f"{KEY}=$(base64 -w 0 deploy/openrecon/OpenReconLabel.json)"
    encoded = subprocess.run(
        ["base64", "-w", "0", str(DEPLOY / "openrecon" / "OpenReconLabel.json")], capture_output=True, check=True
    ).stdout
    assert json.loads(base64.b64decode(encoded)) == LABEL
    assert "not built in CI" in text
    for parameter in LABEL["parameters"]:
        assert f"`{parameter['id']}`" in text


def health() -> Any:
    spec = importlib.util.spec_from_file_location("health", DEPLOY / "openrecon" / "health.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def answering(said: bytes) -> Iterator[int]:
    """A port where one client gets these bytes when it has said two."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(2) == b"\x04\x00"
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_health(capsys: pytest.CaptureFixture[str]) -> None:
    probe = health()
    for said, well in (
        (b"\x04\x00", True),
        (b"\x05\x00\x02\x00\x00\x00hi\x04\x00", True),
        (b"HTTP", False),
        (b"", False),
    ):
        with answering(said) as port:
            assert probe.answers("127.0.0.1", port) is well
    assert "4 bytes came, expected CLOSE at their end" in capsys.readouterr().err
    assert probe.answers("127.0.0.1", port) is False  # nobody listens any more
    assert str(port) in capsys.readouterr().err


def test_free_ports_are_all_different() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = free_ports(300)
        assert len(set(found)) == 300
        assert taken.getsockname()[1] not in found


def status(url: str, credentials: str = "") -> int:
    request = urllib.request.Request(url)
    if credentials:
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_orthanc_with_this_configuration_asks_for_a_password(tmp_path: Path) -> None:
    command = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if command is None:
        pytest.skip("Orthanc is not installed")
    told = json.loads((DEPLOY / "orthanc" / "orthanc.json").read_text())
    port, dicom = free_ports(2)
    told |= {"HttpPort": port, "DicomPort": dicom, "StorageDirectory": str(tmp_path / "db")}
    told |= {"IndexDirectory": str(tmp_path / "db"), "Plugins": [p for p in told["Plugins"] if Path(p).is_dir()]}
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "orthanc.json").write_text(json.dumps(told))
    (folder / "users.json").write_text(json.dumps({"RegisteredUsers": {"somebody": "secret"}}))
    with (tmp_path / "log").open("w") as log:
        orthanc = subprocess.Popen([command, str(folder)], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 30
            while not status(f"http://127.0.0.1:{port}/system") and orthanc.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
            assert status(f"http://127.0.0.1:{port}/system") == 401, (tmp_path / "log").read_text()
            assert status(f"http://127.0.0.1:{port}/system", "orthanc:orthanc") == 401
            for path in ("system", "dicom-web/studies"):
                assert status(f"http://127.0.0.1:{port}/{path}", "somebody:secret") == 200
        finally:
            orthanc.terminate()
            orthanc.wait(30)
