"""template.yaml, read: the local stack and the tests are made from the same definitions as the cloud's.

Of CloudFormation's language it understands what the templates here use: parameters with their defaults,
conditions, `!Ref`, `!GetAtt`, `!Sub`, `!If`, `!Join`, `!Split` and `AWS::NoValue`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{name}",
    "AWS::Serverless::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "AWS::Events::EventBus": "arn:aws:events:{region}:{account}:event-bus/{name}",
    "AWS::CloudWatch::Alarm": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
}
NAMES = ("BucketName", "LogGroupName", "AlarmName")  # properties that name a resource
NO_VALUE = object()


@dataclass(frozen=True)
class Stack:
    """The template as a stack; a resource that is given no name there goes by its logical one.

    `parameters` are those that differ from their defaults, as a person would type them.
    """

    name: str = "captions"
    account: str = "123456789012"  # the one moto plays
    region: str = "us-east-1"
    path: Path = TEMPLATE
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def resources(self) -> list[str]:
        """The logical names of what these parameters make."""
        return [name for name in self._template["Resources"] if self.has(name)]

    @property
    def outputs(self) -> dict[str, str]:
        """What the stack tells when it is made."""
        return {
            name: self._resolve(output["Value"])
            for name, output in self._template["Outputs"].items()
            if self.holds(output.get("Condition"))
        }

    def has(self, resource: str) -> bool:
        """Whether these parameters make the resource. Raises KeyError for a name that is not there."""
        return self.holds(self._template["Resources"][resource].get("Condition"))

    def type(self, resource: str) -> str:
        """Such as `AWS::S3::Bucket`."""
        return str(self._template["Resources"][resource]["Type"])

    def properties(self, resource: str) -> dict[str, Any]:
        """A resource's properties, all resolved. Raises KeyError for a name that is not there or not made."""
        if not self.has(resource):
            raise KeyError(f"{resource} is not made with {dict(self.parameters)}")
        resolved: dict[str, Any] = self._resolve(self._template["Resources"][resource].get("Properties", {}))
        return resolved

    def ref(self, name: str) -> str:
        """What `!Ref` gives: a parameter's value, a resource's name (a queue's too, not its URL)."""
        return str(self._ref(name))

    def arn(self, resource: str) -> str:
        """What `!GetAtt X.Arn` gives."""
        form = ARNS[self.type(resource)]
        return form.format(name=self.ref(resource), region=self.region, account=self.account)

    def holds(self, condition: str | None) -> bool:
        """Whether a condition is true; None is."""
        return condition is None or self._is_true(self._template["Conditions"][condition])

    @cached_property
    def _template(self) -> dict[str, Any]:
        return read_template(self.path)

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::StackName": self.name,
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NoValue": NO_VALUE,
        }
        if name in pseudo:
            return pseudo[name]
        parameter = self._template["Parameters"].get(name)
        if parameter:
            value = self.parameters[name] if name in self.parameters else str(parameter["Default"])
            return value.split(",") if parameter["Type"] == "CommaDelimitedList" else value
        properties = self._template["Resources"][name].get("Properties", {})
        given = (self._resolve(properties[key]) for key in NAMES if key in properties)
        return next(given, name)

    def _attribute(self, resource: str, attribute: str) -> str:
        """An attribute that only the cloud knows stands for itself: `SignIn.Outputs.ClientId`."""
        if attribute == "Arn":
            return self.arn(resource)
        return f"{resource}.{attribute}"

    def _is_true(self, condition: Any) -> bool:
        match condition:
            case {"Condition": str(name)}:
                return self.holds(name)
            case {"Fn::Equals": [left, right]}:
                return str(self._resolve(left)) == str(self._resolve(right))
            case {"Fn::Not": [part]}:
                return not self._is_true(part)
            case {"Fn::And": [*parts]}:
                return all(self._is_true(part) for part in parts)
            case {"Fn::Or": [*parts]}:
                return any(self._is_true(part) for part in parts)
        raise ValueError(f"{condition} is not understood as a condition")

    def _resolve(self, value: Any) -> Any:
        match value:
            case {"Ref": str(name)}:
                return self._ref(name)
            case {"Fn::GetAtt": [str(resource), str(attribute)]}:
                return self._attribute(resource, attribute)
            case {"Fn::If": [str(condition), then, otherwise]}:
                return self._resolve(then if self.holds(condition) else otherwise)
            case {"Fn::Join": [str(between), items]}:
                return between.join(self._resolve(items))
            case {"Fn::Split": [str(between), text]}:
                return self._resolve(text).split(between)
            case {"Fn::Sub": str(text)}:
                return self._substitute(text, {})
            case {"Fn::Sub": [str(text), dict(names)]}:
                return self._substitute(text, self._resolve(names))
            case dict() if any(name.startswith("Fn::") for name in value):
                raise ValueError(f"{value} is not understood")
            case dict():
                resolved = ((name, self._resolve(item)) for name, item in value.items())
                return {name: item for name, item in resolved if item is not NO_VALUE}
            case list():
                return [item for item in map(self._resolve, value) if item is not NO_VALUE]
        return value

    def _substitute(self, text: str, names: Mapping[str, str]) -> str:
        def put(found: re.Match[str]) -> str:
            name, _, attribute = found[1].partition(".")
            if attribute:
                return self._attribute(name, attribute)
            return names[name] if name in names else self.ref(name)

        return re.sub(r"\$\{([\w:.]+)}", put, text)


def read_template(path: Path = TEMPLATE) -> dict[str, Any]:
    """A CloudFormation template, its short tags as long ones: `!Ref X` is `{"Ref": "X"}`."""
    template: dict[str, Any] = yaml.load(path.read_text(), _Loader)
    return template


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's tags."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Mapping[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise yaml.YAMLError(f"!{tag} of a mapping is not understood")
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _tagged)


def create_table(stack: Stack, dynamodb: Any, resource: str = "Records") -> str:
    """Makes the table as defined, with a DynamoDB client; its name."""
    name = stack.ref(resource)
    properties = stack.properties(resource)
    ttl = properties.pop("TimeToLiveSpecification", None)
    backups = properties.pop("PointInTimeRecoverySpecification", None)
    dynamodb.create_table(TableName=name, **properties)
    if ttl:
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=ttl)
    if backups:
        dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=backups)
    return name


def create_queue(stack: Stack, sqs: Any, resource: str = "Uploads") -> str:
    """Makes the queue as defined, with an SQS client; its URL. Its dead-letter queue must be there."""
    attributes = _queue_attributes(stack.properties(resource))
    return str(sqs.create_queue(QueueName=stack.ref(resource), Attributes=attributes)["QueueUrl"])


def create_bucket(stack: Stack, s3: Any, resource: str = "Photos") -> str:
    """Makes the bucket as defined, with an S3 client; its name. The queues it notifies must be there."""
    properties = stack.properties(resource)
    name = str(properties["BucketName"])
    s3.create_bucket(Bucket=name)
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"])
    s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    encryption = [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": rule["BucketKeyEnabled"],
        }
        for rule in properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    ]
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": encryption})
    if "VersioningConfiguration" in properties:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
    s3.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": cors_rules(stack, resource)})
    queues = []
    for queue in properties["NotificationConfiguration"]["QueueConfigurations"]:
        queues.append({"QueueArn": queue["Queue"], "Events": [queue["Event"]]})
        if "Filter" in queue:
            queues[-1]["Filter"] = {"Key": {"FilterRules": queue["Filter"]["S3Key"]["Rules"]}}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": queues})
    return name


def cors_rules(stack: Stack, resource: str = "Photos") -> list[dict[str, Any]]:
    """Which pages may use the bucket, as S3's own API words it."""
    other_names = {"ExposedHeaders": "ExposeHeaders", "MaxAge": "MaxAgeSeconds"}
    return [
        {other_names.get(key, key): value for key, value in rule.items()}
        for rule in stack.properties(resource)["CorsConfiguration"]["CorsRules"]
    ]


def create_stack(stack: Stack, s3: Any, sqs: Any, dynamodb: Any) -> tuple[str, str, str]:
    """Makes all that holds data, in the order of what leans on what; bucket, queue URL and table."""
    create_queue(stack, sqs, "DeadLetters")
    queue = create_queue(stack, sqs, "Uploads")
    policy = stack.properties("UploadsPolicy")["PolicyDocument"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes=_queue_attributes({"Policy": policy}))
    table = create_table(stack, dynamodb)
    return create_bucket(stack, s3), queue, table


def _queue_attributes(properties: Mapping[str, Any]) -> dict[str, str]:
    """As SQS takes them: all strings, structures as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()}
