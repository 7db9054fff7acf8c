"""Image and mask files of every mode."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.data.frame import Frame
from kdsearch.data.pixels import read_gray, white_of
from kdsearch.errors import DataError

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
BOX = np.zeros((48, 64), dtype=np.uint8)
BOX[8:20, 10:30] = 255


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_gray_image_reads_the_same_in_every_mode(tmp_path, suffix, mode):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(RAMP).convert(mode).save(path)
    np.testing.assert_array_equal(read_gray(path), RAMP)


def _firsts(paths):
    """Images, and the number of the only frame of each."""
    return [(path, 0) for path in paths]


def test_jpeg_is_read(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "image.jpg", quality=95)
    assert np.abs(read_gray(tmp_path / "image.jpg").astype(int) - RAMP).max() < 8


def test_transparent_pixels_are_black_whatever_their_color(tmp_path):
    rgba = np.full((4, 4, 4), 255, dtype=np.uint8)
    rgba[:2, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "image.png")[:, 0], [0, 0, 255, 255])


def test_transparency_of_a_palette_is_seen(tmp_path):
    image = Image.fromarray(RAMP).convert("P")
    image.save(tmp_path / "image.png", transparency=image.getpixel((63, 0)))
    assert read_gray(tmp_path / "image.png")[0, 63] == 0


@pytest.mark.parametrize("white", [1023, 4095, 16383, 65535])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_deep_image_is_scaled_by_its_depth_and_a_dark_one_stays_dark(tmp_path, white, share):
    gray = RAMP / RAMP.max() * share
    Image.fromarray((gray * white).round().astype(np.uint16)).save(tmp_path / "image.png")
    assert np.abs(read_gray(tmp_path / "image.png") - gray * 255).max() <= 1


def test_fractional_values_are_scaled_from_0_to_1(tmp_path):
    gray = (RAMP / RAMP.max() * 0.4).astype(np.float32)
    gray[0, 0] = np.nan
    Image.fromarray(gray).save(tmp_path / "image.tiff")
    assert np.abs(read_gray(tmp_path / "image.tiff") - np.nan_to_num(gray) * 255).max() <= 1


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\x00" * 20])
def test_undecodable_file_is_refused(tmp_path, content):
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_gray(tmp_path / "image.png")


def test_truncated_file_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    with pytest.raises(DataError, match="cannot be decoded"):
        read_gray(tmp_path / "cut.png")


SMALL = Frame(height=32, width=32)


def test_resizing_keeps_the_lesion_s_share_and_two_values():
    small = SMALL.mask(np.minimum(BOX, 1))
    assert set(np.unique(small)) == {0, 1}
    assert (small > 0).mean() == pytest.approx((BOX > 0).mean(), rel=0.1)


def test_resizing_averages_and_does_not_skip():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    assert np.abs(Frame(height=16, width=16).image(stripes)[4:12, 4:12].astype(int) - 127).max() <= 8


def _save(path, values):
    Image.fromarray(values).save(path)
    return path


def test_fractions_may_overshoot_and_are_not_mixed_with_whole_numbers(tmp_path):
    ramp = np.linspace(0, 1.01, 64, dtype=np.float32).reshape(8, 8)
    files = [_save(tmp_path / "a.tiff", ramp), _save(tmp_path / "b.tiff", ramp / 2)]
    assert white_of(_firsts(files), bits=None) == 1.0
    assert read_gray(files[1], whites=(1.0,)).max() == pytest.approx(0.505 * 255, abs=1)
    with pytest.raises(DataError, match="bits: 16 needs whole numbers, but the images hold fractions"):
        white_of(_firsts(files), bits=16)
    whole = _save(tmp_path / "c.png", (np.arange(64).reshape(8, 8) * 60).astype(np.uint16))
    with pytest.raises(DataError, match="hold fractions .0-1., such as .*a.tiff, others whole numbers, .*c.png"):
        white_of(_firsts([*files, whole]), bits=None)
    assert white_of(_firsts([whole]), bits=None) == 4095
    assert white_of(_firsts([tmp_path / "absent.png"]), bits=None) is None


def test_smallest_sufficient_bit_depth_of_several_sources_is_used(tmp_path):
    dim = _save(tmp_path / "dim.png", np.full((4, 4), 2048, np.uint16))
    bright = _save(tmp_path / "bright.png", np.full((4, 4), 32768, np.uint16))
    assert read_gray(dim, whites=(65535.0, 4095.0)).max() == 128
    assert read_gray(bright, whites=(65535.0, 4095.0)).max() == 128
    assert read_gray(bright, whites=(4095.0,)).max() == 255


@pytest.mark.parametrize("kind", [np.int32, np.int16])
def test_negative_whole_numbers_as_in_ct_are_refused(tmp_path, kind):
    values = np.linspace(-1000, 1040, 64).reshape(8, 8).astype(kind)
    path = _save(tmp_path / "ct.tiff", values) if kind is np.int32 else _save_tiff(tmp_path / "ct.tiff", values)
    with pytest.raises(DataError, match="values from -1000 to 1040, but gray values must not be negative; choose"):
        read_gray(path)
    with pytest.raises(DataError, match="holds values from -1000"):
        read_gray(path, whites=(4095.0,))


def _save_tiff(path, values):
    """Signed 16 bits, which Pillow reads but does not write: tag 339 (SampleFormat) is 2."""
    Image.fromarray(values.view(np.uint16)).save(path, tiffinfo={339: 2})
    return path


def test_z_scores_are_refused_and_overshoot_is_not(tmp_path):
    scores = np.linspace(-2.5, 3.6, 64, dtype=np.float32).reshape(8, 8)
    with pytest.raises(DataError, match=r"holds values from -2.5 to 3.6, .*fractions 0-1"):
        read_gray(_save(tmp_path / "z.tiff", scores))
    shot = np.linspace(-0.02, 1.03, 64, dtype=np.float32).reshape(8, 8)
    assert read_gray(_save(tmp_path / "shot.tiff", shot)).max() == 255


def test_infinite_value_is_named(tmp_path):
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[0, 0] = np.inf
    with pytest.raises(DataError, match="holds infinite values"):
        read_gray(_save(tmp_path / "a.tiff", values))


def test_values_on_no_known_gray_scale_are_refused(tmp_path):
    """For example, z-scores shifted so that they start at 0."""
    shifted = _save(tmp_path / "a.tiff", np.linspace(0, 6.1, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(DataError, match=r"fractional numbers up to 6.1, such as .*a.tiff; scale all"):
        white_of(_firsts([shifted]), bits=None)
    averaged = _save(tmp_path / "b.tiff", np.linspace(0, 249.5, 64, dtype=np.float32).reshape(8, 8))
    assert white_of(_firsts([shifted, averaged]), bits=None) == 255


def test_fractions_are_not_read_as_whole_numbers_nor_the_reverse(tmp_path):
    shares, whole = (RAMP / 255).astype(np.float32), RAMP.astype(np.uint16) * 16
    Image.fromarray(shares).save(tmp_path / "shares.tiff")
    Image.fromarray(whole).save(tmp_path / "whole.png")
    Image.fromarray((RAMP > 250).astype(np.float32)).save(tmp_path / "zeros.tiff")
    with pytest.raises(DataError, match="holds fractions .0-1., expected whole numbers up to 4095"):
        read_gray(tmp_path / "shares.tiff", whites=(4095.0,))
    with pytest.raises(DataError, match="holds values up to 4032, expected fractions .0-1."):
        read_gray(tmp_path / "whole.png", whites=(1.0,))
    assert read_gray(tmp_path / "zeros.tiff", whites=(4095.0,)).max() == 0


def test_too_large_an_image_is_refused_without_pillows_warning(tmp_path, recwarn):
    Image.new("1", (10_100, 10_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="10100×10000 pixels, at most 100,000,000"):
        read_gray(tmp_path / "large.png")
    assert not recwarn.list
