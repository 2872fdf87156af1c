"""All that ships in the image."""

import os

# onnxruntime's wheels report home and keep an identifier on disk, unless told not to before they are imported; the
# variable has had two names. What this service knows of people's photos stays with them.
for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")
