"""`python -m infra.adopt_bucket BUCKET`: an existing bucket tells EventBridge of its photos, and keeps all else.

S3 replaces a bucket's whole notification configuration with what it is given, and its whole CORS configuration too.
So both are read, added to and written back. There is no condition on such a write: do not run two at a time.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.template import Stack, cors_rules


def enable_eventbridge(s3: Any, bucket: str) -> bool:
    """Turns the bucket's events to EventBridge on; whether they were off. Raises ClientError."""
    configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    del configuration["ResponseMetadata"]
    if "EventBridgeConfiguration" in configuration:
        return False
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration=configuration | {"EventBridgeConfiguration": {}},
        SkipDestinationValidation=True,  # the others stay, even where one of them is broken
    )
    return True


def allow_page(s3: Any, bucket: str, origin: str) -> bool:
    """Lets a page of this origin upload and show photos; whether it could not before. Raises ClientError."""
    try:
        rules = s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchCORSConfiguration":
            raise
        rules = []
    ours = [rule | {"AllowedOrigins": [origin]} for rule in cors_rules(Stack())]
    missing = [rule for rule in ours if rule not in rules]
    if missing:
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules + missing})
    return bool(missing)


def main(arguments: list[str], client: Callable[..., Any] = boto3.client) -> int:
    """Runs the command; its exit status. `client` makes a client of a service."""
    parser = argparse.ArgumentParser(prog="python -m infra.adopt_bucket", description=__doc__.splitlines()[0])
    parser.add_argument("bucket", help="the bucket, in the account of your AWS credentials")
    parser.add_argument("--origin", help="lets the page at this origin send photos to the bucket (CORS)")
    wishes = parser.parse_args(arguments)
    try:
        s3 = client("s3")
        changed = enable_eventbridge(s3, wishes.bucket)
        print(f"{wishes.bucket}: events to EventBridge {'are on now' if changed else 'were on already'}")
        if wishes.origin:
            changed = allow_page(s3, wishes.bucket, wishes.origin)
            print(f"{wishes.bucket}: {wishes.origin} {'is allowed now' if changed else 'was allowed already'}")
    except (BotoCoreError, ClientError) as error:
        print(f"{wishes.bucket}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
