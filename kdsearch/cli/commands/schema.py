"""``kdsearch schema``: the JSON Schema that editors check study files with."""

from __future__ import annotations

import argparse
import json

from kdsearch.config.study import StudyConfig


def run(_options: argparse.Namespace) -> int:
    """Prints the schema."""
    print(json.dumps(StudyConfig.model_json_schema(by_alias=True), indent=2, ensure_ascii=False))
    return 0
