"""What is written reads back the same."""

from __future__ import annotations

import pytest

from kdsearch.config.yaml_file import YamlFile, dump_yaml


@pytest.mark.parametrize(
    "text", ["1234567890123e45", "0891234567891234", "1e3", "089", "1_0", "no", "null", "a: b", "", "½"]
)
def test_text_stays_text(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(dump_yaml({"text": text, "number": 1e-3, "list": [1, None, True]}), encoding="utf-8")
    assert YamlFile(path).content == {"text": text, "number": 0.001, "list": [1, None, True]}
