"""The API against its own description: schemathesis asks what the document allows, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

from function.api import Site, respond
from function.events import ObjectName
from function.objects import settle
from infra.gateway import serve

KEY = "cats/chelsea.jpg"  # the example in the document
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_every_answer_is_one_that_the_document_describes(aws, service, photo, tmp_path):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo)
    settle(ObjectName(aws.bucket, KEY), service)
    with serve(lambda event: respond(event, service, Site(aws.bucket, "", "LOCAL"))) as url:
        options = ["--max-examples=30", "--seed=1", "--generation-database=none", "--no-color", "--checks=all"]
        options.append("--exclude-checks=positive_data_acceptance")  # no schema says which bytes are a photo
        done = subprocess.run(
            [SCHEMATHESIS, "run", f"{url}/openapi.json", *options],
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout[-8000:]
