"""``kdsearch schema``: the JSON Schema that editors check study files with, or its settings as Markdown tables."""

from __future__ import annotations

import argparse
import json

from kdsearch.config.reference import reference
from kdsearch.config.study import StudyConfig


def run(options: argparse.Namespace) -> int:
    """Prints the schema."""
    if options.markdown:
        print(reference())
    else:
        print(json.dumps(StudyConfig.model_json_schema(by_alias=True), indent=2, ensure_ascii=False))
    return 0
