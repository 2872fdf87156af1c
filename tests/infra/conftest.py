from tests.local_stack import aws, bundle_folder, client, endpoint, other_photo, photo, service

__all__ = ["aws", "bundle_folder", "client", "endpoint", "other_photo", "photo", "service"]
