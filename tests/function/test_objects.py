import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from function import objects
from function.captioner import Captioner
from function.events import ObjectName
from function.objects import ObjectUnavailable, settle
from function.records import Overtaken
from tests.local_stack import keep_annotations, meanwhile, refuse


@pytest.fixture(params=["moto", "localstack"])
def server(request):
    return request.param


@pytest.fixture
def name(aws):
    return ObjectName(aws.bucket, "album/a bé.jpg")


@pytest.fixture
def upload(aws, name):
    def put(body, **fields):
        aws.s3.put_object(Bucket=name.bucket, Key=name.key, Body=body, **fields)

    return put


@pytest.fixture
def held(aws, name):
    return lambda: aws.s3.head_object(Bucket=name.bucket, Key=name.key)


@pytest.fixture
def recorded(service, name):
    return lambda: service.records.read(f"{name.bucket}/{name.key}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def count_copies(s3):
    copies = []
    s3.meta.events.register("before-send.s3.CopyObject", lambda request, **_: copies.append(request))
    return copies


def test_a_photo_gets_a_record_and_its_metadata(service, name, upload, held, recorded, photo):
    upload(photo)
    record = settle(name, service)

    assert record == recorded()
    assert (record.status, record.caption_by, record.model) == ("captioned", "model", "tiny")
    assert record.image == f"{name.bucket}/album/a bé.jpg"
    assert record.caption == record.captions[0]["text"] != ""
    assert all(caption["log_probability"] < 0 for caption in record.captions)
    assert (record.width, record.height, record.format, record.bytes) == (451, 300, "JPEG", len(photo))
    assert record.sha256 == sha256(photo)
    assert record.etag == held()["ETag"].strip('"')
    assert record.day.startswith(record.captioned_at[:10] + "#")
    assert (record.reason, record.expires_at) == (None, None)
    assert held()["Metadata"] == {
        "caption": record.caption,
        "caption-model": "tiny",
        "caption-source": sha256(photo),
    }


def test_the_event_of_the_own_copy_changes_nothing(service, name, upload, recorded, photo):
    upload(photo)
    settle(name, service)
    before, copies = recorded(), count_copies(service.s3)
    for _ in range(3):
        assert settle(name, service) == before
    assert (service.captioner.inferences, copies) == (1, [])


def test_the_same_bytes_again_cost_no_inference_and_get_their_metadata_back(
    service, name, upload, held, recorded, photo
):
    upload(photo)
    first = settle(name, service)
    upload(photo)
    settle(name, service)
    assert service.captioner.inferences == 1
    assert held()["Metadata"]["caption"] == first.caption
    assert recorded().captioned_at == first.captioned_at


def test_the_same_bytes_under_another_etag_cost_no_inference(service, name, upload, recorded, photo):
    upload(photo)
    record = settle(name, service)
    stale = service.records.write(replace(record, etag="of-a-multipart-upload-2"), record)
    settle(name, service)
    assert service.captioner.inferences == 1
    assert (recorded().etag, recorded().revision) == (record.etag, stale.revision + 1)


def test_other_bytes_are_captioned_anew(service, name, upload, held, photo, other_photo):
    upload(photo)
    settle(name, service)
    upload(other_photo)
    record = settle(name, service)
    assert record.sha256 == held()["Metadata"]["caption-source"] == sha256(other_photo)
    assert service.captioner.inferences == 2


def test_another_model_captions_anew(service, name, upload, held, photo):
    upload(photo)
    first = settle(name, service)
    newer = Captioner(service.captioner.bundle)
    newer.name = "tiny-2"
    record = settle(name, replace(service, captioner=newer))
    assert (record.model, held()["Metadata"]["caption-model"]) == ("tiny-2", "tiny-2")
    assert record.captioned_at > first.captioned_at


@pytest.mark.parametrize("source", ["right", "wrong"])
def test_metadata_that_was_copied_or_forged_is_not_believed(service, name, upload, held, photo, source):
    digest = sha256(photo if source == "right" else b"something else")
    upload(
        photo,
        Metadata={"caption": "a lie", "caption-model": "tiny", "caption-source": digest, "album": "mine"},
    )
    record = settle(name, service)
    assert service.captioner.inferences == 1
    assert record.caption != "a lie"
    assert held()["Metadata"] == {
        "album": "mine",
        "caption": record.caption,
        "caption-model": "tiny",
        "caption-source": sha256(photo),
    }


def test_without_write_back_the_object_is_not_touched(service, name, upload, held, photo):
    upload(photo)
    before = held()["LastModified"]
    record = settle(name, replace(service, write_back="none"))
    assert (record.status, record.reason) == ("captioned", None)
    assert (held()["Metadata"], held()["LastModified"]) == ({}, before)


def test_what_a_crash_left_unfinished_is_finished_without_inference(service, name, upload, held, photo):
    upload(photo)
    settle(name, replace(service, write_back="none"))  # as if killed between the record and the copy
    record = settle(name, service)
    assert service.captioner.inferences == 1
    assert held()["Metadata"]["caption"] == record.caption


def test_a_persons_correction_stays_while_the_bytes_do(service, name, upload, held, photo, other_photo):
    upload(photo)
    record = settle(name, service)
    service.records.write(replace(record, caption="Chelsea, naturally", caption_by="person"), record)
    newer = Captioner(service.captioner.bundle)
    newer.name = "tiny-2"
    corrected = settle(name, replace(service, captioner=newer))
    assert (corrected.caption, corrected.caption_by) == ("Chelsea, naturally", "person")
    assert held()["Metadata"]["caption"] == "Chelsea, naturally"
    assert held()["Metadata"]["caption-model"] == "person"

    upload(other_photo)
    assert settle(name, service).caption_by == "model"


def test_a_removed_photo_becomes_a_tombstone(aws, service, name, upload, photo):
    upload(photo)
    record = settle(name, service)
    aws.s3.delete_object(Bucket=name.bucket, Key=name.key)
    gone = settle(name, service)
    assert (gone.status, gone.revision) == ("deleted", record.revision + 1)
    assert (gone.caption, gone.sha256, gone.day) == (None, None, None)
    assert settle(name, service) == gone


def test_a_key_that_was_never_seen_becomes_a_tombstone_too(service, name, recorded):
    assert settle(name, service).status == "deleted"
    assert recorded().revision == 1


def test_a_late_removal_event_does_not_remove_what_is_there(aws, service, name, upload, photo):
    upload(photo)
    aws.s3.delete_object(Bucket=name.bucket, Key=name.key)
    settle(name, service)
    upload(photo)
    assert settle(name, service).status == "captioned"


def test_a_removed_delete_marker_brings_the_photo_back(aws, service, name, upload, photo):
    aws.s3.put_bucket_versioning(Bucket=aws.bucket, VersioningConfiguration={"Status": "Enabled"})
    upload(photo)
    settle(name, service)
    marker = aws.s3.delete_object(Bucket=name.bucket, Key=name.key)["VersionId"]
    assert settle(name, service).status == "deleted"
    aws.s3.delete_object(Bucket=name.bucket, Key=name.key, VersionId=marker)
    back = settle(name, service)
    assert (back.status, back.version_id) == (
        "captioned",
        aws.s3.head_object(Bucket=name.bucket, Key=name.key)["VersionId"],
    )


@pytest.mark.parametrize("body", [b"", b"no photo at all", b"\xff\xd8\xff\xe0 cut off"])
def test_an_upload_that_is_no_photo_is_rejected_with_its_reason(service, name, upload, held, recorded, body):
    upload(body)
    record = settle(name, service)
    assert record == recorded()
    assert (record.status, record.sha256, record.bytes) == ("rejected", sha256(body), len(body))
    assert record.reason
    assert "\n" not in record.reason
    assert record.day
    assert (record.caption, record.model) == (None, None)
    assert held()["Metadata"] == {}
    assert settle(name, service) == record


def test_a_truncated_photo_is_rejected(service, name, upload, photo):
    upload(photo[: len(photo) // 2])
    assert settle(name, service).status == "rejected"


def test_a_rejected_upload_may_be_replaced_by_a_photo(service, name, upload, photo):
    upload(b"no photo")
    settle(name, service)
    upload(photo)
    assert (settle(name, service).status, settle(name, service).reason) == ("captioned", None)


def test_what_is_too_large_for_a_photo_is_rejected_unread(service, name, upload, photo, monkeypatch):
    monkeypatch.setattr(objects, "LARGEST", 1000)
    upload(photo)
    record = settle(name, service)
    assert (record.status, record.reason) == ("rejected", f"too large for a photo: {len(photo):,} bytes")
    assert (record.sha256, record.bytes) == (None, len(photo))


def test_an_archived_object_is_rejected_until_it_is_restored(aws, service, name, upload, held, photo):
    upload(photo, StorageClass="GLACIER")
    record = settle(name, service)
    assert (record.status, record.reason) == ("rejected", "archived (GLACIER): restore it, then ask again")

    aws.s3.restore_object(Bucket=name.bucket, Key=name.key, RestoreRequest={"Days": 1})
    record = settle(name, service)
    assert (record.status, record.reason) == (
        "captioned",
        "not written to the object: it is archived (GLACIER)",
    )
    assert held()["Metadata"] == {}


def test_a_photo_that_was_captioned_and_then_archived_keeps_its_caption(service, name, upload, photo):
    upload(photo, StorageClass="GLACIER_IR")
    before = settle(name, service)
    refuse(service.s3, "GetObject", 403, "InvalidObjectState")
    assert settle(name, service).caption == before.caption


def test_an_object_with_a_customers_key_is_rejected(service, name, upload, photo):
    upload(photo)
    refuse(service.s3, "GetObject", 400, "InvalidRequest", "stored using a form of Server Side Encryption")
    record = settle(name, service)
    assert (record.status, record.reason) == ("rejected", "encrypted with a customer's key (SSE-C)")
    assert settle(name, service) == record


def test_a_locked_object_is_captioned_and_not_rewritten(aws, service, photo):
    aws.s3.create_bucket(Bucket="vault", ObjectLockEnabledForBucket=True)
    aws.s3.put_object(Bucket="vault", Key="a.jpg", Body=photo, ObjectLockLegalHoldStatus="ON")
    record = settle(ObjectName("vault", "a.jpg"), service)
    assert (record.status, record.reason) == (
        "captioned",
        "not written to the object: it is locked (Object Lock)",
    )
    assert len(aws.s3.list_object_versions(Bucket="vault")["Versions"]) == 1


def test_a_photo_replaced_while_it_was_captioned_is_left_to_its_own_event(
    service, name, upload, held, photo, other_photo
):
    upload(photo)
    meanwhile(service.s3, "CopyObject", lambda: upload(other_photo))
    assert settle(name, service).sha256 == sha256(photo)
    assert held()["Metadata"] == {}
    assert settle(name, service).sha256 == held()["Metadata"]["caption-source"] == sha256(other_photo)


def test_a_photo_removed_while_it_was_captioned_is_no_error(aws, service, name, upload, photo):
    upload(photo)
    meanwhile(service.s3, "CopyObject", lambda: aws.s3.delete_object(Bucket=name.bucket, Key=name.key))
    assert settle(name, service).status == "captioned"
    assert settle(name, service).status == "deleted"


def test_a_conflict_is_tried_again_without_another_inference(service, name, upload, held, photo):
    upload(photo)
    refuse(service.s3, "CopyObject", 409, "ConditionalRequestConflict", times=2)
    record = settle(name, service)
    assert held()["Metadata"]["caption"] == record.caption
    assert service.captioner.inferences == 1


def test_a_conflict_that_does_not_end_is_raised(service, name, upload, photo):
    upload(photo)
    refuse(service.s3, "CopyObject", 409, "ConditionalRequestConflict")
    with pytest.raises(Overtaken):
        settle(name, service)


def test_who_is_overtaken_begins_again_with_what_is_there_then(service, name, upload, recorded, photo, other_photo):
    """Another worker settles newer bytes between this one's look at the bucket and its write."""
    upload(photo)

    def newer():
        upload(other_photo)
        settle(name, replace(service, records=replace(service.records, dynamodb=elsewhere)))

    elsewhere = service.records.dynamodb
    mine = replace(service, records=replace(service.records, dynamodb=_second_client(elsewhere)))
    meanwhile(mine.records.dynamodb, "PutItem", newer)
    settle(name, mine)
    assert recorded().sha256 == sha256(other_photo)


def test_many_workers_on_one_key_end_with_one_truth(service, name, upload, held, recorded, photo):
    upload(photo)
    with ThreadPoolExecutor(4) as pool:
        records = [work.result() for work in [pool.submit(settle, name, service) for _ in range(4)]]
    assert {record.caption for record in records} == {recorded().caption} == {held()["Metadata"]["caption"]}
    assert recorded().etag == held()["ETag"].strip('"')


@pytest.mark.parametrize(("operation", "doing"), [("GetObject", "read"), ("CopyObject", "write")])
def test_a_missing_permission_names_the_object_and_is_raised(service, name, upload, photo, operation, doing):
    upload(photo)
    refuse(service.s3, operation, 403, "AccessDenied", "no policy allows it")
    with pytest.raises(ObjectUnavailable) as denied:
        settle(name, service)
    assert str(denied.value) == f"cannot {doing} {name}: AccessDenied: no policy allows it"


def test_a_missing_bucket_names_it(service):
    with pytest.raises(ObjectUnavailable, match=r"cannot read s3://nowhere/a\.jpg: NoSuchBucket"):
        settle(ObjectName("nowhere", "a.jpg"), service)


def _second_client(client):
    import boto3

    return boto3.client("dynamodb", endpoint_url=client.meta.endpoint_url)


@pytest.fixture
def annotations(service, name):
    held = {}
    keep_annotations(service.s3, name.bucket, held)
    return held


def test_a_caption_can_be_an_annotation_which_copies_nothing(service, name, upload, held, photo, annotations):
    upload(photo)
    before = held()["LastModified"]
    record = settle(name, replace(service, write_back="annotation"))
    said = {"caption": record.caption, "model": "tiny", "source": sha256(photo)}
    assert json.loads(annotations[name.key]) == said
    assert (held()["Metadata"], held()["LastModified"]) == ({}, before)


def test_an_annotation_that_is_there_is_not_written_again(service, name, upload, photo, annotations):
    upload(photo)
    annotating = replace(service, write_back="annotation")
    settle(name, annotating)
    refuse(service.s3, "PutObjectAnnotation", 500, "InternalError")
    settle(name, annotating)
    annotations.clear()
    with pytest.raises(ObjectUnavailable, match="cannot annotate"):
        settle(name, annotating)


def test_a_photo_that_is_replaced_before_it_is_annotated_is_left_alone(
    service, aws, name, upload, photo, other_photo, annotations
):
    upload(photo)
    meanwhile(service.s3, "GetObjectAnnotation", lambda: upload(other_photo))
    settle(name, replace(service, write_back="annotation"))
    assert annotations == {}


def test_a_record_can_have_an_end(service, name, upload, photo):
    upload(photo)
    lasting = replace(service, life=timedelta(days=10))
    record = settle(name, lasting)
    assert record.expires_at == pytest.approx(datetime.now().timestamp() + 10 * 86400, abs=60)
    assert settle(name, lasting) == record


def test_news_are_announced_once(service, name, upload, photo):
    news = []
    announcing = replace(service, announce=news.append)
    upload(photo)
    for _ in range(3):
        settle(name, announcing)
    upload(photo, ContentType="image/jpeg")  # the same bytes are no news
    settle(name, announcing)
    upload(b"no photo")
    settle(name, announcing)
    assert [record.status for record in news] == ["captioned", "rejected"]
