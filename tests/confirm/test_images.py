"""What is stored of a confirmation's images."""

from __future__ import annotations

import json

from kdsearch.confirm.store import ScoredImages, dump_images, read_images

IMAGES = ScoredImages(
    groups=("a", "b"),
    sources=("here", "here"),
    labels=("", "benign"),
    lesion_fraction=(0.0, 0.25),
    folds=((0, 1),),
    test_to_train=0.5,
)


def test_images_carry_a_schema_and_those_of_before_are_read():
    written = json.loads(dump_images(IMAGES))
    assert written.pop("schema") == 1
    assert read_images(dump_images(IMAGES)) == read_images(json.dumps(written)) == IMAGES
