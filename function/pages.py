"""The files that a browser loads: the page, and Swagger UI, each under a policy that lets it load nothing else."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).parent
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class PageFile:
    """A file of a page; it is read when it is first asked for."""

    path: Path

    @cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    @property
    def media_type(self) -> str:
        kind = mimetypes.guess_type(self.path.name)[0] or "application/octet-stream"
        return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def page_files() -> dict[str, PageFile]:
    """Name -> file of the page; what is not in here is not served."""
    return {path.name: PageFile(path) for path in (HERE / "page").glob("*.*")}


def docs_files() -> dict[str, PageFile]:
    """Name -> file of Swagger UI, which ships with Powertools, and of what shows it."""
    from aws_lambda_powertools.event_handler.openapi import swagger_ui

    folder = Path(swagger_ui.__path__[0])
    swagger = [folder / "swagger-ui-bundle.min.js", folder / "swagger-ui.min.css"]
    return {path.name: PageFile(path) for path in [*(HERE / "docs").glob("*.*"), *swagger]}


def page_policy(bucket: str | None, sign_in: str | None) -> str:
    """The Content-Security-Policy of the page, which talks to the API, to the bucket and to where people sign in."""
    images = " ".join(filter(None, ("'self' blob: data:", bucket)))
    others = " ".join(filter(None, ("'self'", bucket, sign_in)))
    return f"{NOTHING}; script-src 'self'; style-src 'self'; img-src {images}; connect-src {others}"


# Swagger UI draws its icons from data: addresses.
DOCS_POLICY = f"{NOTHING}; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
