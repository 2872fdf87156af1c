"""`sam local invoke` of the image that `make image` built: `python -m infra.invoke events/x.json`, or `make invoke`.

The function finds the bucket and the table of template.yaml in a local S3 and DynamoDB (moto), with the sample
photos in it, and one of them under the key that the files in events/ speak of. Its answer goes to stdout; its log, and
a line for each record it made, to stderr.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3

from infra.local import SAMPLES, CannotStart, keep_local, local_aws, serve_aws
from infra.template import Stack, create_stack

SAM = Path(__file__).parents[1] / ".venv-sam" / "bin" / "sam"
PHOTOS = {path.name: path for path in SAMPLES.glob("*.jpg")} | {"cats/Chelsea at café.jpg": SAMPLES / "chelsea.jpg"}


def main(event: str) -> int:
    """Invokes the function with the event in this file. Exit status: SAM's, or 2 if nothing was begun."""
    stack = Stack()
    try:
        with local_aws() as ours, serve_aws(bridge_socket()) as theirs, tempfile.TemporaryDirectory() as folder:
            keep_local(os.environ, ours, stack.region)
            s3, sqs, dynamodb = boto3.client("s3"), boto3.client("sqs"), boto3.client("dynamodb")
            bucket, _, table = create_stack(stack, s3, sqs, dynamodb)
            for key, path in PHOTOS.items():
                s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ContentType="image/jpeg")
            status = sam_local(["invoke", "--event", event], stack, theirs, Path(folder)).wait()
            for record in dynamodb.scan(TableName=table)["Items"]:
                text = record.get("caption") or record.get("reason") or record["status"]
                print(f"{record['image']['S']}: {text['S']}", file=sys.stderr)
    except CannotStart as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 2
    return status


def bridge_socket() -> socket.socket:
    """Listens where the engine's containers reach it, and nobody else: on its bridge. Raises CannotStart."""
    form = '{{index .Options "com.docker.network.bridge.name"}} {{(index .IPAM.Config 0).Gateway}}'
    command = ["docker", "network", "inspect", "bridge", "--format", form]
    listening = socket.socket()
    try:
        name, address = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        listening.bind((address, 0))
        listening.listen()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        listening.close()
        raise CannotStart(f"the Docker engine's bridge is not on this machine ({error})") from error
    return listening


def sam_local(arguments: list[str], stack: Stack, endpoint: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts `sam local …` with the function and the API of the stack, this AWS, and a template made in the folder."""
    resources: dict[str, dict[str, Any]] = {
        name: {"Type": stack.type(name), "Properties": stack.properties(name)}
        for name in stack.resources
        if stack.type(name).startswith(("AWS::Serverless::Function", "AWS::ApiGatewayV2::"))
    }
    function = resources["Captions"]["Properties"]
    function["ImageUri"] = "captions:latest"
    variables = function["Environment"]["Variables"]
    variables["AWS_ENDPOINT_URL"] = endpoint
    template = folder / "template.json"
    template.write_text(json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": resources}))
    # To SAM a variable of the template is worth less than one of that name in the shell.
    environment = {**os.environ, **variables, "SAM_CLI_TELEMETRY": "0"}
    return subprocess.Popen([SAM, "local", *arguments, "--template", template], env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
