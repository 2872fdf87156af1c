import json
import re
import shlex

import boto3
import pytest
from botocore.validate import ParamValidator

from infra.template import TEMPLATE, Stack, create_stack, read_template

STACK = Stack(name="mine", account="111122223333", region="eu-west-1")
INFRA = TEMPLATE.parent / "infra"
KEY = "arn:aws:kms:us-east-1:123456789012:key/0a1b"
PARAMETERS = {
    "nothing said": {},
    "existing bucket": {"ExistingBucket": "old"},
    "existing bucket, written to": {"ExistingBucket": "old", "WriteBack": "metadata", "KeyPrefix": "in/"},
    "annotations": {"WriteBack": "annotation", "EventBus": "default"},
    "own key": {"KeyArn": KEY, "Versioning": "yes", "RecordDays": "90", "EventBus": "new"},
    "cognito": {"AuthType": "COGNITO", "AlarmEmail": "a@example.org"},
    "jwt": {"AuthType": "JWT", "JwtIssuer": "https://login.example.org", "JwtAudience": "captions"},
    "open": {
        "AuthType": "NONE",
        "ExistingBucket": "old",
        "AllowOrigins": "https://a.example.org,https://b.example.org",
    },
}
every_way = pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
every_template = pytest.mark.parametrize("path", [TEMPLATE, *sorted(INFRA.glob("*.yaml"))], ids=lambda path: path.name)


def nested(name, **parameters):
    return Stack(path=INFRA / f"{name}.yaml", parameters=parameters)


SWEEP = nested("sweep", Bucket="photos", Function="arn:aws:lambda:us-east-1:123456789012:function:f")


def role(stack, name="CaptionsRole"):
    """Sid -> statement."""
    (policy,) = stack.properties(name)["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def routes(stack):
    found = [stack.properties(name) for name in stack.resources if stack.type(name) == "AWS::ApiGatewayV2::Route"]
    return {route["RouteKey"]: route["AuthorizationType"] for route in found}


def test_references_are_resolved():
    assert STACK.ref("AWS::Region") == "eu-west-1"
    assert STACK.ref("WriteBack") == "auto"
    assert STACK.ref("Photos") == "mine-111122223333-eu-west-1"
    assert STACK.arn("Photos") == "arn:aws:s3:::mine-111122223333-eu-west-1"
    assert STACK.arn("Uploads") == "arn:aws:sqs:eu-west-1:111122223333:Uploads"
    assert STACK.arn("Records") == "arn:aws:dynamodb:eu-west-1:111122223333:table/Records"
    with pytest.raises(KeyError):
        STACK.ref("Nothing")


def test_what_a_condition_rules_out_is_not_made():
    assert STACK.has("Photos")
    old = Stack(parameters={"ExistingBucket": "old"})
    assert not old.has("Photos")
    with pytest.raises(KeyError, match="not made"):
        old.properties("Photos")


# ---- parameters


@every_template
def test_every_parameter_and_every_output_says_what_it_is(path):
    template = read_template(path)
    for group in ("Parameters", "Outputs"):
        for name, definition in template.get(group, {}).items():
            assert definition.get("Description"), name


def test_every_parameter_stands_in_one_group_and_has_a_default():
    template = read_template()
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template["Parameters"])
    assert all("Default" in parameter for parameter in template["Parameters"].values())


@every_way
def test_nested_stacks_are_given_what_they_ask_for_and_asked_for_what_they_tell(parameters):
    stack = Stack(parameters=parameters)
    text = json.dumps([stack.properties(name) for name in stack.resources]) + json.dumps(stack.outputs)
    for name in stack.resources:
        if stack.type(name) == "AWS::CloudFormation::Stack":
            properties = stack.properties(name)
            template = read_template(TEMPLATE.parent / properties["TemplateURL"])
            assert set(properties["Parameters"]) == set(template["Parameters"])
            assert set(re.findall(rf"{name}\.Outputs\.(\w+)", text)) <= set(template.get("Outputs", ()))


def test_tokens_need_an_issuer_and_an_audience():
    rule = read_template()["Rules"]["JwtNeedsAnIssuer"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "AuthType"}, "JWT"]}
    assert [assertion["Assert"]["Fn::Not"][0]["Fn::Equals"] for assertion in rule["Assertions"]] == [
        [{"Ref": "JwtIssuer"}, ""],
        [{"Ref": "JwtAudience"}, ""],
    ]


# ---- photos and queues


def test_the_bucket_is_private_and_encrypted_and_tells_the_queue_of_uploads_and_removals():
    bucket = STACK.properties("Photos")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert bucket["NotificationConfiguration"]["QueueConfigurations"] == [
        {"Event": "s3:ObjectCreated:*", "Queue": STACK.arn("Uploads")},
        {"Event": "s3:ObjectRemoved:*", "Queue": STACK.arn("Uploads")},
    ]


@pytest.mark.parametrize(("stack", "resource"), [(STACK, "Photos"), (SWEEP, "Reports")])
def test_buckets_are_closed_to_what_is_not_tls(stack, resource):
    statement = stack.properties(f"{resource}Policy")["PolicyDocument"]["Statement"][0]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [stack.arn(resource), stack.arn(resource) + "/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": False}}


def test_an_own_key_encrypts_bucket_and_table_and_the_function_may_use_it_through_them_alone():
    stack = Stack(parameters=PARAMETERS["own key"])
    (encryption,) = stack.properties("Photos")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    assert stack.properties("Records")["SSESpecification"]["KMSMasterKeyId"] == KEY
    statement = role(stack)["Key"]
    assert statement["Resource"] == KEY
    assert statement["Condition"]["StringEquals"]["kms:ViaService"] == [
        "s3.us-east-1.amazonaws.com",
        "dynamodb.us-east-1.amazonaws.com",
    ]


def test_only_this_bucket_of_this_account_may_send_to_the_queue():
    (statement,) = STACK.properties("UploadsPolicy")["PolicyDocument"]["Statement"]
    assert statement["Resource"] == STACK.arn("Uploads")
    assert statement["Condition"] == {
        "ArnEquals": {"aws:SourceArn": STACK.arn("Photos")},
        "StringEquals": {"aws:SourceAccount": "111122223333"},
    }


def test_an_existing_bucket_reaches_the_queue_by_one_rule_and_loses_nothing_on_the_way():
    stack = Stack(parameters={"ExistingBucket": "old", "KeyPrefix": "in/"})
    rule = stack.properties("PhotosChanged")
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created", "Object Deleted"],
        "detail": {"bucket": {"name": ["old"]}, "object": {"key": [{"prefix": "in/"}]}},
    }
    (target,) = rule["Targets"]
    assert target["Arn"] == stack.arn("Uploads")
    assert target["DeadLetterConfig"] == {"Arn": stack.arn("DeadLetters")}
    for queue in ("Uploads", "DeadLetters"):
        (statement,) = stack.properties(f"{queue}Policy")["PolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        assert statement["Resource"] == stack.arn(queue)
        assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": stack.arn("PhotosChanged")}}


def test_a_message_stays_hidden_for_six_timeouts_and_is_tried_five_times():
    queue, function = STACK.properties("Uploads"), STACK.properties("Captions")
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": STACK.arn("DeadLetters"), "maxReceiveCount": 5}
    assert STACK.properties("DeadLetters")["MessageRetentionPeriod"] == 14 * 24 * 3600
    mapping = STACK.properties("UploadsToCaptions")
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": "10"}


@pytest.mark.parametrize(("stack", "resource"), [(STACK, "Photos"), (STACK, "Records"), (SWEEP, "Reports")])
def test_what_people_own_outlives_the_stack(stack, resource):
    definition = read_template(stack.path)["Resources"][resource]
    assert (definition["DeletionPolicy"], definition["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


# ---- what the function is told, and what it may do


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {"BUCKET": "captions-123456789012-us-east-1", "WRITE_BACK": "metadata", "UPLOAD_PREFIX": ""}),
        ({"ExistingBucket": "old"}, {"BUCKET": "old", "WRITE_BACK": "none"}),
        ({"ExistingBucket": "old", "WriteBack": "metadata"}, {"WRITE_BACK": "metadata"}),
        ({"WriteBack": "annotation", "KeyPrefix": "in/"}, {"WRITE_BACK": "annotation", "UPLOAD_PREFIX": "in/"}),
        ({"WriteBack": "none"}, {"WRITE_BACK": "none"}),
        ({"RecordDays": "90", "EventBus": "default"}, {"RETENTION_DAYS": "90", "EVENT_BUS": "default"}),
        ({"EventBus": "new"}, {"EVENT_BUS": "Bus"}),
        ({"AllowOrigins": "https://a,https://b"}, {"ALLOW_ORIGINS": "https://a,https://b"}),
        ({"AuthType": "NONE"}, {"AUTH": "NONE"}),
        (
            {"AuthType": "COGNITO"},
            {"COGNITO_DOMAIN": "SignIn.Outputs.Domain", "COGNITO_CLIENT_ID": "SignIn.Outputs.ClientId"},
        ),
    ],
)
def test_the_function_is_told(parameters, expected):
    variables = Stack(parameters=parameters).properties("Captions")["Environment"]["Variables"]
    assert expected.items() <= variables.items()


def test_the_function_is_told_nothing_of_what_nobody_asked_for():
    assert STACK.properties("Captions")["Environment"]["Variables"] == {
        "TABLE": "Records",
        "BUCKET": "mine-111122223333-eu-west-1",
        "UPLOAD_PREFIX": "",
        "WRITE_BACK": "metadata",
        "AUTH": "AWS_IAM",
        "POWERTOOLS_SERVICE_NAME": "mine",
        "POWERTOOLS_METRICS_NAMESPACE": "Captions",
    }


def test_the_function_may_touch_its_bucket_its_table_its_queue_and_its_log_and_no_more():
    statements = role(STACK)
    assert {name: statement["Resource"] for name, statement in statements.items()} == {
        "Bucket": STACK.arn("Photos"),
        "Objects": STACK.arn("Photos") + "/*",
        "Records": STACK.arn("Records"),
        "Listing": STACK.arn("Records") + "/index/by_day",
        "Queue": STACK.arn("Uploads"),
        "Log": "arn:aws:logs:eu-west-1:111122223333:log-group:/aws/lambda/mine:*",
        "Trace": "*",  # X-Ray knows no ARN for a trace
    }


@every_way
def test_no_permission_is_wider_than_an_arn(parameters):
    stack = Stack(parameters=parameters)
    for name, statement in (role(stack) | role(SWEEP, "Role")).items():
        assert name == "Trace" or statement["Resource"].startswith("arn:aws:"), name
        assert "*" not in json.dumps(statement["Action"]), name


def test_below_a_prefix_the_function_touches_nothing_else():
    stack = Stack(parameters={"KeyPrefix": "in/", "ExistingBucket": "old"})
    assert role(stack)["Objects"]["Resource"] == "arn:aws:s3:::old/in/*"


@pytest.mark.parametrize(
    ("parameters", "actions"),
    [
        ({"WriteBack": "none", "AuthType": "NONE"}, {"GetObject"}),
        ({"WriteBack": "none"}, {"GetObject", "PutObject"}),  # the API signs uploads
        (
            {"WriteBack": "annotation"},
            {"GetObject", "PutObject", "GetObjectAnnotation", "PutObjectAnnotation", "DeleteObjectAnnotation"},
        ),
        (
            {"WriteBack": "metadata"},
            {"GetObject", "PutObject", "GetObjectAnnotation", "PutObjectAnnotation", "GetObjectTagging"}
            | {"PutObjectTagging", "GetObjectLegalHold", "GetObjectRetention"},
        ),
    ],
)
def test_the_function_may_write_no_more_than_the_way_of_writing_back_takes(parameters, actions):
    assert set(role(Stack(parameters=parameters))["Objects"]["Action"]) == {f"s3:{action}" for action in actions}


def test_captions_are_announced_to_the_bus_that_was_named_and_to_no_other():
    named = Stack(parameters={"EventBus": "others"})
    assert role(named)["Announce"]["Resource"] == "arn:aws:events:us-east-1:123456789012:event-bus/others"
    new = Stack(parameters={"EventBus": "new"})
    assert role(new)["Announce"]["Resource"] == new.arn("Bus")
    assert "Announce" not in role(STACK)


# ---- the API

PAGE = {"GET /", "GET /page/{proxy+}", "GET /docs", "GET /docs/{proxy+}", "GET /openapi.json", "GET /health"}


@pytest.mark.parametrize(
    ("parameters", "locked", "open_to_all"),
    [
        ({}, {"$default": "AWS_IAM"}, set()),
        ({"AuthType": "COGNITO"}, {"$default": "JWT"}, PAGE),
        ({"AuthType": "JWT"}, {"$default": "JWT"}, PAGE),
        ({"AuthType": "NONE"}, {}, PAGE | {"POST /captions"}),
    ],
)
def test_who_may_call_what(parameters, locked, open_to_all):
    assert routes(Stack(parameters=parameters)) == locked | dict.fromkeys(open_to_all, "NONE")


def test_tokens_are_checked_against_the_issuer_that_was_named():
    authorizer = Stack(parameters=PARAMETERS["jwt"]).properties("Authorizer")
    assert authorizer["JwtConfiguration"] == {"Issuer": "https://login.example.org", "Audience": ["captions"]}
    cognito = Stack(parameters=PARAMETERS["cognito"])
    assert cognito.properties("Authorizer")["JwtConfiguration"] == {
        "Issuer": "SignIn.Outputs.Issuer",
        "Audience": ["SignIn.Outputs.ClientId"],
    }
    assert cognito.properties("AllRoutes")["AuthorizerId"] == "Authorizer"


@pytest.mark.parametrize("parameters", [{}, PARAMETERS["jwt"], PARAMETERS["open"]])
def test_people_are_kept_only_where_they_sign_in_here(parameters):
    stack = Stack(parameters=parameters)
    assert not stack.has("SignIn")
    assert "COGNITO_DOMAIN" not in stack.properties("Captions")["Environment"]["Variables"]


def test_people_are_added_and_sign_in_with_a_code_and_no_secret():
    stack = nested("sign-in", Name="mine", Page="https://page.example.org/")
    assert stack.properties("People")["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    client = stack.properties("Client")
    assert client["GenerateSecret"] is False  # Cognito then takes PKCE for the proof
    assert client["AllowedOAuthFlows"] == ["code"]
    assert client["CallbackURLs"] == client["LogoutURLs"] == ["https://page.example.org/"]
    assert client["ExplicitAuthFlows"] == ["ALLOW_REFRESH_TOKEN_AUTH"]


@every_way
def test_the_api_is_throttled_and_its_log_kept_for_as_long_as_was_said(parameters):
    stack = Stack(parameters=parameters | {"RequestsPerSecond": "7", "LogDays": "90"})
    stage = stack.properties("ApiStage")
    assert stage["DefaultRouteSettings"] == {"ThrottlingRateLimit": "7", "ThrottlingBurstLimit": "7"}
    assert stage["AccessLogSettings"]["DestinationArn"] == stack.arn("ApiLog")
    assert "query" not in stage["AccessLogSettings"]["Format"].lower()
    assert json.loads(stage["AccessLogSettings"]["Format"])
    for log in ("ApiLog", "CaptionsLog"):
        assert stack.properties(log)["RetentionInDays"] == "90"


def test_other_origins_may_call_the_api_and_use_the_bucket_only_if_named():
    own = "https://Api.execute-api.us-east-1.amazonaws.com"
    (rule,) = Stack().properties("Photos")["CorsConfiguration"]["CorsRules"]
    assert rule["AllowedOrigins"] == [own]
    assert "CorsConfiguration" not in Stack().properties("Api")
    named = Stack(parameters={"AllowOrigins": "https://a.example.org,https://b.example.org"})
    (rule,) = named.properties("Photos")["CorsConfiguration"]["CorsRules"]
    assert rule["AllowedOrigins"] == [own, "https://a.example.org", "https://b.example.org"]
    assert named.properties("Api")["CorsConfiguration"]["AllowOrigins"] == rule["AllowedOrigins"][1:]


def test_an_open_api_is_warned_of():
    assert "you pay" in Stack(parameters={"AuthType": "NONE"}).outputs["Warning"]
    assert "Warning" not in Stack().outputs


# ---- sweeping


@pytest.mark.parametrize(
    ("parameters", "filter_"),
    [({}, None), ({"KeyPrefix": "in/"}, {"KeyNameConstraint": {"MatchAnyPrefix": ["in/"]}})],
)
def test_the_command_that_sweeps_a_bucket_is_one_that_amazon_takes(parameters, filter_):
    stack = Stack(parameters=parameters | {"ExistingBucket": "old"})
    words = shlex.split(stack.outputs["SweepBucket"])
    assert words[:3] == ["aws", "s3control", "create-job"]
    words.remove("--no-confirmation-required")
    options = dict(zip(words[3::2], words[4::2], strict=True))
    job = {
        "AccountId": options["--account-id"],
        "Operation": json.loads(options["--operation"]),
        "ManifestGenerator": json.loads(options["--manifest-generator"]),
        "Report": json.loads(options["--report"]),
        "Priority": int(options["--priority"]),
        "RoleArn": options["--role-arn"],
        "ClientRequestToken": "made by the command line itself",
    }
    client = boto3.client("s3control", region_name="us-east-1")
    shape = client.meta.service_model.operation_model("CreateJob").input_shape
    assert not ParamValidator().validate(job, shape).has_errors()
    generator = job["ManifestGenerator"]["S3JobManifestGenerator"]
    assert generator["SourceBucket"] == "arn:aws:s3:::old"
    assert generator.get("Filter") == filter_
    assert job["Operation"]["LambdaInvoke"]["FunctionArn"] == stack.arn("Captions")


# ---- a stack on this machine


def test_a_stack_is_made_as_it_is_defined(client):
    s3, sqs, dynamodb = client("s3"), client("sqs"), client("dynamodb")
    bucket, queue, table = create_stack(Stack(), s3, sqs, dynamodb)

    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "360"
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == 5
    assert json.loads(attributes["Policy"]) == Stack().properties("UploadsPolicy")["PolicyDocument"]
    notifications = s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert {event for each in notifications for event in each["Events"]} == {
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:*",
    }
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"]
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"][0]["AllowedMethods"] == ["GET", "POST"]
    described = dynamodb.describe_table(TableName=table)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "image", "KeyType": "HASH"}]
    assert described["GlobalSecondaryIndexes"][0]["IndexName"] == "by_day"
    backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    ttl = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires_at")


def test_a_versioned_stack_with_a_prefix_hears_only_of_what_is_below_it(client):
    s3, sqs, dynamodb = client("s3"), client("sqs"), client("dynamodb")
    stack = Stack(parameters={"KeyPrefix": "in/", "Versioning": "yes"})
    bucket, queue, _ = create_stack(stack, s3, sqs, dynamodb)
    sqs.purge_queue(QueueUrl=queue)  # S3's test event
    assert "VersionId" in s3.put_object(Bucket=bucket, Key="out/a.jpg", Body=b"")
    s3.put_object(Bucket=bucket, Key="in/b.jpg", Body=b"")
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [json.loads(message["Body"])["Records"][0]["s3"]["object"]["key"] for message in messages] == ["in%2Fb.jpg"]


@pytest.mark.parametrize(
    "value", ["!Sub {a: b}", "!Select [0, [a]]", "!If [C, a, b]"], ids=["tag", "function", "condition"]
)
def test_what_nobody_here_understands_is_refused(tmp_path, value):
    path = tmp_path / "template.yaml"
    path.write_text(f"Conditions:\n  C: !Select [0, [a]]\nResources:\n  R:\n    Properties: {{x: {value}}}\n")
    with pytest.raises(Exception, match="not understood"):
        Stack(path=path).properties("R")
