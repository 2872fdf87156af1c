from tests.local_stack import (
    aws,
    bundle_folder,
    client,
    endpoint,
    localstack_endpoint,
    other_photo,
    photo,
    server,
    service,
)

__all__ = [
    "aws",
    "bundle_folder",
    "client",
    "endpoint",
    "localstack_endpoint",
    "other_photo",
    "photo",
    "server",
    "service",
]
