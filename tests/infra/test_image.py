"""The container, built and invoked, where a Docker engine answers or can be started. Its base is debootstrap's."""

import json
import re
import socket
import subprocess
import time
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from infra.budget import BUDGET, IMAGE, PACKED, grown
from infra.emulator import ROOT
from infra.invoke import SAM, sam_local
from infra.template import Stack, read_template
from tests.local_stack import event

BASE = "captions-base"
# As on Lambda: only /tmp can be written, and the user has no rights. Here without a network too.
LOCKED = ["--read-only", "--tmpfs=/tmp", "--user=993:990", "--cap-drop=ALL", "--network=none", "--memory=512m"]


def run(*command, **options):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def succeed(*command, **options):
    """What the command says; fails where it does."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def in_container(image, program, *arguments, options=(), **run_options):
    command = ["docker", "run", "--rm", "--interactive", *options, "--entrypoint", program, image, *arguments]
    return succeed(*command, **run_options)


def caption_in_container(image):
    """What the function answers to an image, locked up."""
    code = (
        "import json, sys; from function.app import answer, deployed_service as service; "
        "print(json.dumps(answer(json.load(sys.stdin), service())))"
    )
    options = [*LOCKED, "--env=TABLE=captions", "--env=AWS_DEFAULT_REGION=us-east-1"]
    return json.loads(
        in_container(image, "python3", "-c", code, options=options, input=json.dumps(event("direct-image")))
    )


@pytest.fixture(scope="module")
def engine():
    """A Docker engine, until these tests end."""
    script = 'echo "engine $DOCKER_HOST"; read -r _'
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(["infra/docker.sh", "sh", "-c", script], cwd=ROOT, text=True, **pipes) as process:
        line = process.stdout.readline()
        if not line:
            pytest.skip(process.stderr.read().strip())
        with pytest.MonkeyPatch.context() as patch:
            if host := line.removeprefix("engine").strip():
                patch.setenv("DOCKER_HOST", host)
            yield
        process.stdin.close()


@pytest.fixture(scope="module")
def image(engine):
    """The image, made as a person without a registry makes it."""
    made = run("infra/base_image.sh", BASE)
    if made.returncode:
        pytest.skip(f"no base image: {made.stderr.strip().splitlines()[-1]}")
    download = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest=/tmp", "awslambdaric"]
    reached = run("docker", "run", "--rm", "--entrypoint=python3", BASE, *download)
    if reached.returncode:
        pytest.skip(f"no network in containers: {reached.stderr.strip().splitlines()[-1]}")
    succeed("make", "image", f"BASE_IMAGE={BASE}")
    return "captions"


def test_the_image_keeps_the_services_that_the_function_calls():
    kept = re.search(r"botocore/data/!\(([\w|-]+)", (ROOT / "function" / "Dockerfile").read_text())[1].split("|")
    sources = [path.read_text() for path in (ROOT / "function").glob("*.py")]
    called = {name for source in sources for name in re.findall(r'client\(\s*"([\w-]+)"', source)}
    assert {"dynamodb", "s3"} <= called <= set(kept)


def test_over_its_base_it_has_less_than_170_mb_and_packed_less_than_70(image):
    size, base = (int(succeed("docker", "image", "inspect", "--format={{.Size}}", name)) for name in (image, BASE))
    packed = int(in_container(image, "sh", "-c", "tar --create --gzip --directory /var/task . | wc -c"))
    print(f"{(size - base) / 1e6:.1f} MB over its base, {packed / 1e6:.1f} MB packed")
    assert size - base < 170e6
    assert packed < 70e6
    assert grown(json.loads(BUDGET.read_text()), {IMAGE: size - base, PACKED: packed}) == []


def test_every_module_is_compiled_and_nothing_is_left_of_the_build(image):
    files = in_container(image, "find", "/var/task", "-type", "f", "-printf", "%P\n").splitlines()
    modules = {path for path in files if path.endswith(".py")}
    compiled = {re.sub(r"__pycache__/(\w+)\.cpython-\d+\.pyc$", r"\1.py", path) for path in files}
    assert "function/app.py" in modules
    assert modules <= compiled
    assert not [path for path in files if re.search("(^|/)(Dockerfile|requirements|tests/|pip/)", path)]
    assert in_container(image, "sh", "-c", "find /build /root/.cache /tmp -mindepth 1 2>&- || true") == ""


def test_it_captions_without_rights_network_and_disk(image):
    assert caption_in_container(image)["status"] == "captioned"


def test_sam_builds_the_same(image, tmp_path):
    template = read_template()
    function = template["Resources"]["Captions"]
    context = str(ROOT / function["Metadata"]["DockerContext"])
    function["Metadata"].update(DockerContext=context, DockerBuildArgs={"BASE_IMAGE": BASE})
    template["Resources"] = {"Captions": function}
    (tmp_path / "template.json").write_text(json.dumps(template))
    succeed(SAM, "build", "--template", tmp_path / "template.json", "--build-dir", tmp_path / "build")
    assert caption_in_container("captions:captions") == caption_in_container(image)


@pytest.mark.parametrize("name", ["direct-image", "direct-object"])
def test_sam_invokes_it(name, image):
    answer = json.loads(succeed("make", "invoke", f"EVENT=events/{name}.json"))
    assert answer["status"] == "captioned"


def test_an_upload_gets_its_record_from_the_container(image):
    done = run("make", "invoke", "EVENT=events/s3-put.json")
    assert done.stdout.strip() == "null", done.stderr
    assert re.search("^captions-.*/cats/Chelsea at café.jpg: a .*cat", done.stderr, re.MULTILINE)


@pytest.fixture(scope="module")
def api(image, tmp_path_factory):
    """`sam local start-api` of an open stack: answers a path."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stack = Stack(parameters={"AuthType": "NONE"})
    process = sam_local(["start-api", "--port", str(port)], stack, "http://127.0.0.1:9", tmp_path_factory.mktemp("api"))
    yield lambda path: fetch(f"http://127.0.0.1:{port}{path}", process)
    process.terminate()
    process.wait()


def test_the_api_says_that_it_is_well(api):
    with api("/health") as answer:
        assert answer.status == 200


@pytest.mark.skipif(not (ROOT / "function" / "api.py").exists(), reason="the function has no OpenAPI yet")
def test_the_api_describes_itself(api):
    with api("/openapi.json") as answer:
        assert "/captions" in json.load(answer)["paths"]


def fetch(url, process):
    """The server's answer, as soon as it listens."""
    while process.poll() is None:
        try:
            return urlopen(url)
        except HTTPError:
            raise
        except URLError:
            time.sleep(0.2)
    raise AssertionError(f"the server ended with {process.returncode}")
