"""Links and forms that let a browser exchange photos with the bucket itself, for minutes.

They are signed here with the function's own credentials (SigV4) and hold for one key each.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from function.events import ObjectName
from function.photos import MEDIA_TYPES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FORM_LIFE = 600  # seconds
LINK_LIFE = 900


def new_key(prefix: str, filename: str) -> str:
    """A key that nobody has and nobody guesses, ending with what is harmless of a file's name."""
    name = re.sub(r"[^\w.-]+", "-", filename.replace("\\", "/").rpartition("/")[2]).strip("-.")
    return f"{prefix}{uuid.uuid4().hex}/{name[-100:] or 'photo'}"


def sign_upload(s3: S3Client, name: ObjectName, media_type: str, size: int) -> tuple[str, dict[str, str]]:
    """The address and the fields of a form that takes a photo of this type and of exactly `size` bytes to this key.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
    """
    form = s3.generate_presigned_post(
        Bucket=name.bucket,
        Key=name.key,
        Fields={"Content-Type": media_type},
        Conditions=[{"Content-Type": media_type}, ["content-length-range", size, size]],
        ExpiresIn=FORM_LIFE,
    )
    return form["url"], form["fields"]


def sign_link(s3: S3Client, name: ObjectName, format: str | None) -> str:
    """A link that shows the photo, whatever type it was uploaded with."""
    parameters = {"Bucket": name.bucket, "Key": name.key}
    if format:
        parameters["ResponseContentType"] = MEDIA_TYPES[format]
    return s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=LINK_LIFE)


def origin(s3: S3Client, bucket: str) -> str:
    """Where forms and links of the bucket lead, as a Content-Security-Policy names it."""
    scheme, _, host = sign_link(s3, ObjectName(bucket, "-"), None).split("/")[:3]
    return f"{scheme}//{host}"
