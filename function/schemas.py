"""What the HTTP API takes and answers: it checks by these models, and describes itself by them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer

from function.objects import LARGEST
from function.photos import MEDIA_TYPES

Confidence = Annotated[float, Field(description="How likely it is right, from 0 to 1.", ge=0, le=1)]


class Answer(BaseModel):
    """What does not apply is left out."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def] # keeps the schema
        return {name: value for name, value in serialize(self).items() if value is not None}


class Caption(Answer):
    text: str = Field(examples=["a grey cat is looking at the camera"])
    log_probability: float = Field(description="The natural logarithm of its probability.", examples=[-4.10234])
    confidence: Confidence | None = None


class Look(Answer):
    """Where the model looked as it said a word."""

    word: str = Field(examples=["cat"])
    weights: list[list[float]] = Field(
        description="A grid over the photo, rows from the top, each from the left; the weights sum to 1.",
        examples=[[[0.1, 0.2], [0.4, 0.3]]],
    )


class Described(Answer):
    """What the bytes of a photo say."""

    caption: str = Field(description="The best caption.", examples=["a grey cat is looking at the camera"])
    confidence: Confidence | None = None
    captions: list[Caption] = Field(description="What the model considered, the best first.")
    model: str = Field(description="Who wrote the captions.", examples=["flickr8k-lite2-lstm-3"])
    sha256: str = Field(description="Of the bytes, hexadecimal.", pattern="^[0-9a-f]{64}$")
    bytes: int
    width: int = Field(description="Of the upright photo, in pixels.")
    height: int
    format: str = Field(examples=sorted(MEDIA_TYPES))
    attention: list[Look] | None = Field(None, description="With `explain=true`: a grid for each word of the caption.")


class Item(Answer):
    """What is known of a photo in the bucket."""

    key: str = Field(description="Of the photo in the bucket.", examples=["cats/chelsea.jpg"])
    status: Literal["captioned", "rejected"]
    caption: str | None = Field(None, examples=["a grey cat is looking at the camera"])
    caption_by: Literal["model", "person"] | None = None
    confidence: Confidence | None = None
    captions: list[Caption] = Field([], description="What the model considered, the best first.")
    model: str | None = Field(None, examples=["flickr8k-lite2-lstm-3"])
    reason: str | None = Field(
        None, description="Why the photo is rejected, or why its caption could not be written to the object too."
    )
    captioned_at: str | None = Field(None, description="ISO 8601, UTC.", examples=["2026-11-24T03:44:57.225Z"])
    revision: int = Field(description="Counts the record's changes.")
    sha256: str | None = Field(None, description="Of the bytes, hexadecimal.")
    etag: str | None = None
    version_id: str | None = None
    bytes: int | None = None
    width: int | None = Field(None, description="Of the upright photo, in pixels.")
    height: int | None = None
    format: str | None = Field(None, examples=sorted(MEDIA_TYPES))
    image_url: str = Field(description="Shows the photo, for a quarter of an hour.")


class Page(Answer):
    items: list[Item] = Field(description="The newest first; may be fewer than `limit` though more follow.")
    cursor: str | None = Field(None, description="Gets the next page; left out where this is the last.")


class Correction(BaseModel):
    model_config = ConfigDict(extra="forbid")

    caption: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)] = Field(
        description="What the photo shows, in a person's words; one line.",
        pattern=r"^[^\x00-\x1f\x7f]*$",
        examples=["Chelsea, a tabby cat, looks past the camera."],
    )


class UploadWish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    filename: str = Field(description="The key ends with it.", min_length=1, max_length=255, examples=["chelsea.jpg"])
    content_type: Literal[*MEDIA_TYPES.values()] = Field(examples=["image/jpeg"])  # type: ignore[valid-type]
    bytes: int = Field(description="The file's exact size.", ge=1, le=LARGEST, examples=[5_242_880])


class Upload(Answer):
    """A form that takes this one photo: POST all `fields`, and then the photo as `file`, to `url`."""

    key: str = Field(description="Ask for it at `/captions/item`.", examples=["5f0c…/chelsea.jpg"])
    url: str = Field(examples=["https://photos.s3.eu-west-1.amazonaws.com/"])
    fields: dict[str, str]
    expires_in: int = Field(description="Seconds until the bucket takes the form no more.", examples=[600])


class Health(Answer):
    status: Literal["ok"]
    model: str = Field(examples=["flickr8k-lite2-lstm-3"])


class Mistake(Answer):
    where: str = Field(examples=["query.limit"])
    what: str = Field(examples=["Input should be less than or equal to 100"])


class Problem(Answer):
    """Why there is no other answer (RFC 9457)."""

    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the JPEG is damaged: image file is truncated"])
    request_id: str | None = Field(None, description="Stands in the logs too.", examples=["JKJaXmPLvHcESHA="])
    errors: list[Mistake] | None = Field(None, description="What is wrong with which part of the request.")
