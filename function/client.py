"""The deployed API as a program uses it: photos go there, captions come back.

A caller shows a token, or signs with AWS credentials (SigV4), or, where there are none, shows nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.filepost import encode_multipart_formdata

from function.bodies import LARGEST_BODY
from function.objects import LARGEST
from function.photos import read_media_type

TIMEOUT = 60  # seconds to connect, or to wait for an answer: API Gateway gives up after 30
WAIT, PAUSE = 180, 1  # seconds for the record of an upload, and between two looks


class ApiError(Exception):
    """The API did not answer with what was asked; `str` of it is one line that says why."""


@dataclass(frozen=True)
class Client:
    """An API at `url`, such as https://a1b2.execute-api.eu-west-1.amazonaws.com. Raises ValueError for no such URL."""

    url: str
    token: str | None = None

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if not address.hostname or (address.scheme != "https" and not (self.is_here and address.scheme == "http")):
            raise ValueError(f"{self.url}: expected https://…, or http://… on this machine")

    @property
    def is_here(self) -> bool:
        return urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")

    def caption(self, data: bytes, beams: int | None = None, explain: bool = False) -> dict[str, Any]:
        """What the API says of a photo; one that is too large for a request is uploaded, and its record awaited.

        Raises ApiError, and UnreadablePhoto for what is no photo by its header.
        """
        media_type = read_media_type(data)
        if len(data) <= LARGEST_BODY:
            asked = {"beams": beams, "explain": "true" if explain else None}
            query = {name: value for name, value in asked.items() if value is not None}
            return self._ask("POST", "/captions", query, data, media_type)
        if len(data) > LARGEST:
            raise ApiError(f"too large for a photo: {len(data):,} bytes")
        if beams is not None or explain:
            raise ApiError(f"with more than {LARGEST_BODY:,} bytes it is uploaded, and then takes no options")
        return self._await(self._upload(data, media_type))

    def _upload(self, data: bytes, media_type: str) -> str:
        """Sends a photo straight to the bucket; its key."""
        suffix = media_type.removeprefix("image/")
        wish = {"filename": f"photo.{suffix}", "content_type": media_type, "bytes": len(data)}
        form = self._ask("POST", "/uploads", {}, json.dumps(wish).encode(), "application/json")
        fields = [*form["fields"].items(), ("file", ("photo", data, media_type))]
        body, content_type = encode_multipart_formdata(fields)
        status, answer = self._send(AWSRequest("POST", form["url"], {"Content-Type": content_type}, body))
        if status not in (200, 201, 204):
            raise ApiError(f"the bucket answered {status}: {_text(answer)}")
        return str(form["key"])

    def _await(self, key: str) -> dict[str, Any]:
        """The record of a photo that was uploaded, as soon as it is there."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            time.sleep(PAUSE)
            status, answer = self._request("GET", "/captions/item", {"key": key})
            if status == 404:
                continue
            record = _document(status, answer)
            if record["status"] == "rejected":
                raise ApiError(record["reason"])
            return record
        raise ApiError(f"uploaded as {key}, but there is no caption after {WAIT} seconds")

    def _ask(self, *request: Any) -> dict[str, Any]:
        return _document(*self._request(*request))

    def _request(
        self, method: str, path: str, query: Mapping[str, Any], body: bytes = b"", content_type: str | None = None
    ) -> tuple[int, bytes]:
        """Status and body of an answer of the API."""
        encoded = urlencode(query, quote_via=quote)  # a signature knows no + for a space
        url = f"{self.url.rstrip('/')}{path}" + (f"?{encoded}" if encoded else "")
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
        request = AWSRequest(method, url, headers, body)
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        elif self._signer:
            self._signer.add_auth(request)
        return self._send(request)

    def _send(self, request: AWSRequest) -> tuple[int, bytes]:
        try:
            with_proxies = URLLib3Session(proxies=get_environ_proxies(str(request.url)), timeout=TIMEOUT)
            answer = with_proxies.send(request.prepare())
        except BotoCoreError as error:
            raise ApiError(f"{self.url} cannot be reached: {error}") from error
        return answer.status_code, answer.content

    @cached_property
    def _signer(self) -> SigV4Auth | None:
        """Signs for API Gateway, in the region that the address names or else the person's own."""
        if self.is_here:  # `make run`, where nobody signs
            return None
        session = botocore.session.get_session()
        try:
            credentials = session.get_credentials()
        except BotoCoreError as error:
            raise ApiError(f"no AWS credentials: {error}") from error
        if credentials is None:
            return None
        host = (urlsplit(self.url).hostname or "").split(".")
        region = host[2] if "execute-api" in host[1:2] else session.get_config_variable("region")
        if region is None:
            raise ApiError("the API's address names no region: say AWS_DEFAULT_REGION")
        return SigV4Auth(credentials, "execute-api", region)


def _document(status: int, answer: bytes) -> dict[str, Any]:
    """The answer's JSON. Raises ApiError for a problem, with its reason."""
    try:
        document = json.loads(answer)
    except ValueError:
        document = {"message": _text(answer)}
    if status == 200:
        return dict(document)
    reason = document.get("detail") or document.get("message") or document.get("Message") or ""
    raise ApiError(f"the API answered {status}: {reason}")


def _text(answer: bytes) -> str:
    return " ".join(answer[:300].decode(errors="replace").split())
