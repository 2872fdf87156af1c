"""template.yaml, read: the local stack and the tests are made from the same definitions as the cloud's.

Only what the template uses of CloudFormation's language is understood: `!Ref`, `!Sub` with a string and
`!GetAtt X.Arn`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{name}",
}


@dataclass(frozen=True)
class Stack:
    """The template as a stack; a resource that is given no name there goes by its logical one."""

    name: str = "captions"
    account: str = "123456789012"  # the one moto plays
    region: str = "us-east-1"
    path: Path = TEMPLATE

    def properties(self, resource: str) -> dict[str, Any]:
        """A resource's properties, every reference resolved. Raises KeyError for a name that is not there."""
        resolved: dict[str, Any] = self._resolve(self._template["Resources"][resource]["Properties"])
        return resolved

    def ref(self, name: str) -> str:
        """What `!Ref` gives: a parameter's default, a resource's name (a queue's too, not its URL)."""
        pseudo = {
            "AWS::StackName": self.name,
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._template["Parameters"]:
            return str(self._template["Parameters"][name]["Default"])
        properties = self._template["Resources"][name]["Properties"]
        return str(self._resolve(properties.get("BucketName", name)))

    def arn(self, resource: str) -> str:
        """What `!GetAtt X.Arn` gives."""
        form = ARNS[self._template["Resources"][resource]["Type"]]
        return form.format(name=self.ref(resource), region=self.region, account=self.account)

    @cached_property
    def _template(self) -> dict[str, Any]:
        return read_template(self.path)

    def _resolve(self, value: Any) -> Any:
        match value:
            case {"Ref": str(name)}:
                return self.ref(name)
            case {"Fn::GetAtt": [str(resource), "Arn"]}:
                return self.arn(resource)
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([\w:]+)(\.Arn)?}", self._substitute, text)
            case dict():
                return {name: self._resolve(item) for name, item in value.items()}
            case list():
                return [self._resolve(item) for item in value]
        return value

    def _substitute(self, found: re.Match[str]) -> str:
        return self.arn(found[1]) if found[2] else self.ref(found[1])


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
    return {tag if tag == "Ref" else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _tagged)


def create_table(stack: Stack, dynamodb: Any, resource: str = "Records") -> str:
    """Makes the table as defined, with a DynamoDB client; its name."""
    name = stack.ref(resource)
    properties = stack.properties(resource)
    ttl = properties.pop("TimeToLiveSpecification", None)
    dynamodb.create_table(TableName=name, **properties)
    if ttl:
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=ttl)
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
    s3.put_public_access_block(
        Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"]
    )
    s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    encryption = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rules = [
        {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]} for rule in encryption
    ]
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
    queues = properties["NotificationConfiguration"]["QueueConfigurations"]
    s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={
            "QueueConfigurations": [
                {"QueueArn": queue["Queue"], "Events": [queue["Event"]]} for queue in queues
            ]
        },
    )
    return name


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
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()
    }
