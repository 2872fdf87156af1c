from datetime import UTC, datetime
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function import metadata
from function.metadata import NotRewritable, Replaced, labels, says
from function.records import Overtaken
from tests.local_stack import meanwhile, refuse

SHA = "0123456789abcdef" * 4


@pytest.fixture(params=["moto", "localstack"])
def server(request):
    return request.param


@pytest.fixture
def s3(service):
    return service.s3


def head(**fields):
    return {"ETag": '"e"', "Metadata": {}, **fields}


def put(aws, **fields):
    aws.s3.put_object(Bucket=aws.bucket, Key="a b/é.jpg", Body=b"photo", **fields)
    return aws.s3.get_object(Bucket=aws.bucket, Key="a b/é.jpg")


def write(aws, s3, found, caption="a dog runs"):
    return metadata.write(s3, aws.bucket, "a b/é.jpg", found, labels(found, caption, "tiny", SHA))


def size(held):
    return sum(len(f"x-amz-meta-{name}{value}") for name, value in held.items())


def test_the_labels_are_caption_model_and_source():
    assert labels(head(), "a dog runs", "tiny", SHA) == {
        "caption": "a dog runs",
        "caption-model": "tiny",
        "caption-source": SHA,
    }


@pytest.mark.parametrize("caption", ["un café à Zürich", "собака бежит " * 9, "a =?utf-8?q?dog?=", "a\tdog\x07"])
def test_a_caption_that_is_not_ascii_goes_as_encoded_words(caption):
    written = labels(head(), caption, "tiny", SHA)["caption"]
    assert written.isascii()
    assert written.isprintable()
    assert str(make_header(decode_header(written))) == " ".join(caption.split())


@given(st.text(), st.text(min_size=1))
def test_any_caption_can_be_a_header_and_is_recognised(caption, model):
    caption, model = (text.encode(errors="replace").decode() for text in (caption, model))
    wanted = labels(head(), caption, model, SHA)
    assert all(value.isascii() and (value.isprintable() or not value) for value in wanted.values())
    assert says(head(Metadata=wanted), wanted)


def test_near_the_limit_the_caption_gives_way_and_not_the_users_own():
    own = {"album": "x" * 1750}
    written = labels(head(Metadata=own), "a dog runs " * 20, "tiny", SHA)
    assert "a dog runs".startswith(written["caption"][:10])
    assert len(written["caption"]) < 200
    assert size(own | written) <= 2048
    assert size(own | written) > 2048 - len(" runs") - 1


def test_without_room_for_a_word_the_object_is_left_alone():
    with pytest.raises(NotRewritable, match="no room"):
        labels(head(Metadata={"album": "x" * 1950}), "a dog", "tiny", SHA)


def test_labels_of_an_earlier_caption_take_no_room():
    earlier = {"caption": "x" * 1900, "caption-model": "old", "caption-source": SHA}
    assert labels(head(Metadata=earlier), "a dog", "tiny", SHA)["caption"] == "a dog"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"StorageClass": "GLACIER"}, r"archived \(GLACIER\)"),
        ({"StorageClass": "DEEP_ARCHIVE"}, r"archived \(DEEP_ARCHIVE\)"),
        ({"ObjectLockMode": "GOVERNANCE"}, "locked"),
        ({"ObjectLockLegalHoldStatus": "ON"}, "locked"),
        ({"MissingMeta": 1}, "some of its metadata cannot be read"),
        ({"ExpiresString": "soon"}, "Expires header is no date"),
    ],
)
def test_what_a_copy_would_harm_is_left_alone(fields, reason):
    with pytest.raises(NotRewritable, match=reason):
        labels(head(**fields), "a dog", "tiny", SHA)


@pytest.mark.parametrize(
    "fields",
    [
        {"StorageClass": "GLACIER_IR"},
        {"ObjectLockLegalHoldStatus": "OFF"},
        {"ExpiresString": "Thu, 01 Jan 2032 00:00:00 GMT", "Expires": datetime(2032, 1, 1, tzinfo=UTC)},
    ],
)
def test_what_a_copy_keeps_is_rewritten(fields):
    assert labels(head(**fields), "a dog", "tiny", SHA)


@pytest.mark.parametrize("stale", ["caption", "caption-model", "caption-source"])
def test_an_object_says_its_caption_only_if_every_label_is_right(stale):
    wanted = labels(head(), "a dog", "tiny", SHA)
    assert says(head(Metadata=wanted), wanted)
    assert not says(head(Metadata=wanted | {stale: "forged"}), wanted)
    assert not says(head(Metadata={k: v for k, v in wanted.items() if k != stale}), wanted)


def test_the_copy_keeps_everything_else(aws, s3):
    found = put(
        aws,
        ContentType="image/jpeg",
        CacheControl="max-age=60",
        ContentDisposition='attachment; filename="a.jpg"',
        ContentEncoding="identity",
        ContentLanguage="de",
        Expires=datetime(2032, 1, 1, tzinfo=UTC),
        WebsiteRedirectLocation="/elsewhere",
        Metadata={"album": "summer"},
        Tagging="owner=me&year=2026",
        StorageClass="STANDARD_IA",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId="arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
        BucketKeyEnabled=True,
        ChecksumAlgorithm="SHA256",
    )
    tags = aws.s3.get_object_tagging(Bucket=aws.bucket, Key="a b/é.jpg")["TagSet"]
    write(aws, s3, found)
    after = aws.s3.get_object(Bucket=aws.bucket, Key="a b/é.jpg")

    lost = {name for name in metadata.KEPT if name in found and found[name] != after.get(name)}
    assert lost == set()
    assert {"CacheControl", "Expires", "StorageClass", "SSEKMSKeyId", "BucketKeyEnabled"} <= set(found)
    assert after["Metadata"] == {"album": "summer"} | labels(found, "a dog runs", "tiny", SHA)
    assert aws.s3.get_object_tagging(Bucket=aws.bucket, Key="a b/é.jpg")["TagSet"] == tags
    assert after["Body"].read() == b"photo"


def test_the_request_carries_both_conditions_and_all_that_is_kept(aws, s3):
    requests = []
    s3.meta.events.register("before-send.s3.CopyObject", lambda request, **_: requests.append(request.headers))
    found = put(aws, ContentType="image/jpeg", Metadata={"album": "summer"})
    write(aws, s3, found)
    (sent,) = ({name.lower(): value for name, value in headers.items()} for headers in requests)
    text = {name: value.decode() if isinstance(value, bytes) else value for name, value in sent.items()}
    assert text["x-amz-copy-source-if-match"] == text["if-match"] == found["ETag"]
    assert text["x-amz-metadata-directive"] == "REPLACE"
    assert text["x-amz-tagging-directive"] == "COPY"
    assert text["content-type"] == "image/jpeg"


def test_in_a_versioned_bucket_the_copy_is_a_version_of_its_own(aws, s3):
    aws.s3.put_bucket_versioning(Bucket=aws.bucket, VersioningConfiguration={"Status": "Enabled"})
    found = put(aws)
    etag, version_id = write(aws, s3, found)
    now = aws.s3.head_object(Bucket=aws.bucket, Key="a b/é.jpg")
    assert (now["ETag"], now["VersionId"]) == (f'"{etag}"', version_id)
    assert version_id != found["VersionId"]


def test_an_object_replaced_meanwhile_is_left_alone(aws, s3):
    found = put(aws)
    meanwhile(s3, "CopyObject", lambda: aws.s3.put_object(Bucket=aws.bucket, Key="a b/é.jpg", Body=b"another"))
    with pytest.raises(Replaced, match="replaced or removed"):
        write(aws, s3, found)
    after = aws.s3.get_object(Bucket=aws.bucket, Key="a b/é.jpg")
    assert (after["Body"].read(), after["Metadata"]) == (b"another", {})


def test_an_object_gone_meanwhile_stays_gone(aws, s3):
    found = put(aws)
    meanwhile(s3, "CopyObject", lambda: aws.s3.delete_object(Bucket=aws.bucket, Key="a b/é.jpg"))
    with pytest.raises(Replaced):
        write(aws, s3, found)
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=aws.bucket)


def test_a_conflict_means_begin_again(aws, s3):
    found = put(aws)
    refuse(s3, "CopyObject", 409, "ConditionalRequestConflict")
    with pytest.raises(Overtaken):
        write(aws, s3, found)
