"""Files with jobs and settings for programs that a test runs by itself, outside the folders that it looks at."""

import json
import tempfile
from pathlib import Path
from typing import Any

from headstrong.provenance import text_digest

_FOLDER = tempfile.TemporaryDirectory(prefix="headstrong-jobs-")  # goes when the tests end


def job_file(content: Any) -> str:
    """Path of a file with this content: a text as it is, anything else as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    path = Path(_FOLDER.name) / f"{text_digest(text)[:16]}.json"
    path.write_text(text)
    return str(path)
