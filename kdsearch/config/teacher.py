"""The ``teacher`` section: a network that is trained here, an ONNX file, or what another program predicted."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from kdsearch.config.encoder import ENCODER, WEIGHTS, EncoderWeights, require_own_weights
from kdsearch.config.quantity import Quantity
from kdsearch.config.ranges import Section, tag_of, training_rule
from kdsearch.config.training import TeacherTraining

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
    """Encoder weights to start from: ``none``, ``timm`` (downloads), ``package:NAME`` (an installed package that
    carries a weights file) or ``file:PATH``."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Height and width of the images that it is trained on; ``data.size`` unless given. Students get its answers at
    theirs."""
    ensemble: Annotated[int, Field(ge=1, le=10)] = 1
    """How many networks it is the mean of."""
    members: Literal["folds", "seeds"] = "folds"
    """How these differ: ``folds``, each learns from all but one part of the training images, or ``seeds``."""
    flip: bool = False
    """Whether the trained teacher's logits are those of the mean probabilities of an image and its mirror image."""
    checkpoint: str | None = None
    """A teacher you already have, as safetensors of the whole network; it is used as it is and not trained."""
    training: TeacherTraining = TeacherTraining()
    """How the teacher is trained."""

    @property
    def encoder_rate(self) -> float:
        """The encoder's learning rate as a fraction of the rest's."""
        usual = 1.0 if self.weights == "none" else PRETRAINED_RATE
        return usual if self.training.encoder_rate is None else self.training.encoder_rate

    @property
    def file(self) -> str | None:
        """Where it is taken from; None where it is trained."""
        return self.checkpoint

    def work(self, size: int) -> float:
        """How many times the work of training one such network on images of ``size``×``size`` its training is."""
        folds = (self.ensemble - 1) if self.ensemble > 1 and self.members == "folds" else self.ensemble
        return folds * ((self.size or size) / size) ** 2

    @property
    def title(self) -> str:
        """What it is, in a line."""
        several = f"{self.ensemble} times " if self.ensemble > 1 else ""
        return f"{several}{self.architecture} on {self.encoder}, {self.checkpoint or self.weights}"

    @training_rule
    def _weights_are_the_encoder_s(self) -> TeacherConfig:
        if self.checkpoint is None:
            require_own_weights(self.encoder, self.weights)
        return self

    @training_rule
    def _members_are_several(self) -> TeacherConfig:
        if self.members != "folds" and self.ensemble == 1:
            raise ValueError(
                "members says how the networks of an ensemble differ; write ensemble: 2 or more, or remove it"
            )
        return self

    @training_rule
    def _checkpoint_is_whole(self) -> TeacherConfig:
        idle = sorted({"training", "weights", "ensemble", "members"} & self.model_fields_set)
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
