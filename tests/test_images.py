"""Image files: each odd case has its answer, and every bad file its sentence."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from invsolve.errors import InputError, OutputError
from invsolve.images import SAMPLE, grey, load_array, load_image, save_png

LEVELS = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)


def written(path, levels=LEVELS[..., :3], **options):
    Image.fromarray(levels).save(path, **options)
    return path


def planes(levels, top=255):
    return (levels if levels.ndim == 3 else levels[..., None]).transpose(2, 0, 1) / np.float32(top)


def assert_same(actual, expected):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-7)  # float32


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.gif", "a.webp"])
def test_a_grey_photo_has_one_channel_where_its_format_knows_grey(tmp_path, name):
    image = load_image(
        written(tmp_path / name, LEVELS[..., 0], **({"lossless": True} if "webp" in name else {}))
    )
    assert image.pixels.shape[0] == (3 if name in ("a.webp", "a.gif") else 1)
    assert_same(image.pixels[:1], planes(LEVELS[..., 0]))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp"])
def test_a_colour_photo_is_read_exactly(tmp_path, name):
    image = load_image(written(tmp_path / name, **({"lossless": True} if "webp" in name else {})))
    assert_same(image.pixels, planes(LEVELS[..., :3]))
    assert image.alpha is None
    assert image.notes == ()


def test_the_hash_is_that_of_the_file(tmp_path):
    a, b = load_image(written(tmp_path / "a.png")), load_image(written(tmp_path / "b.png"))
    assert a.sha256 == b.sha256 != load_image(SAMPLE).sha256
    assert len(a.sha256) == 64


STORED = {  # how a camera of that orientation stores the upright picture
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_a_rotated_photo_comes_out_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(LEVELS[..., :3]).transpose(STORED[orientation]).save(tmp_path / "a.png", exif=exif)
    image = load_image(tmp_path / "a.png")
    assert_same(image.pixels, planes(LEVELS[..., :3]))
    assert image.notes == (f"turned upright (EXIF orientation {orientation})",)


def test_alpha_is_kept_aside_and_blends_nothing(tmp_path):
    image = load_image(written(tmp_path / "a.png", LEVELS))
    assert_same(image.pixels, planes(LEVELS[..., :3]))
    assert_same(image.alpha, planes(LEVELS[..., 3]))
    assert image.notes == ("alpha channel kept aside",)


def test_grey_with_alpha_is_one_channel_and_alpha(tmp_path):
    Image.merge("LA", [Image.fromarray(LEVELS[..., k]) for k in (0, 3)]).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert_same(image.pixels, planes(LEVELS[..., 0]))
    assert_same(image.alpha, planes(LEVELS[..., 3]))


def test_a_palette_is_expanded(tmp_path):
    image = Image.fromarray(LEVELS[..., :3]).quantize(16)
    image.save(tmp_path / "a.png")
    assert_same(load_image(tmp_path / "a.png").pixels, planes(np.asarray(image.convert("RGB"))))


def test_a_transparent_palette_entry_becomes_alpha(tmp_path):
    image = Image.fromarray(LEVELS[..., :3]).quantize(16)
    image.save(tmp_path / "a.png", transparency=3)
    assert_same(load_image(tmp_path / "a.png").alpha[0], (np.asarray(image) != 3).astype(np.float32))


def test_one_bit_is_black_and_white(tmp_path):
    bits = LEVELS[..., 0] > 127
    for name in ("a.png", "a.tif"):
        Image.fromarray(bits).save(tmp_path / name)
        assert_same(load_image(tmp_path / name).pixels[0], bits.astype(np.float32))


def test_cmyk_is_never_read_as_alpha(tmp_path):
    Image.fromarray(LEVELS[..., :3]).convert("CMYK").save(tmp_path / "a.tif")
    image = load_image(tmp_path / "a.tif")
    assert_same(image.pixels, planes(LEVELS[..., :3]))
    assert image.alpha is None
    assert image.notes == ("CMYK turned into RGB without its colour profile",)


def test_sixteen_bits_keep_their_precision(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (24, 32, 3), dtype=np.uint16)
    Image.fromarray(deep[..., 0]).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "grey.tif", deep[..., 0])
    assert_same(load_image(tmp_path / "grey.png").pixels, planes(deep[..., 0], 65535))
    assert_same(load_image(tmp_path / "grey.tif").pixels, planes(deep[..., 0], 65535))
    assert_same(load_image(tmp_path / "a.tif").pixels, planes(deep, 65535))


def png(width, height, depth, colour, data):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def test_a_16_bit_colour_png_says_that_it_lost_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(png(16, 16, 16, 2, 16 * (b"\0" + bytes(96))))
    assert load_image(tmp_path / "a.png").notes == (
        "16-bit colour PNG read with 8 bits; TIFF or .npy keep all 16",
    )


def test_a_float_tiff_in_range_is_read_as_it_is(tmp_path):
    values = np.random.default_rng(2).random((24, 32), dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert_same(load_image(tmp_path / "a.tif").pixels[0], values)


@pytest.mark.parametrize("shape", [(24, 32), (1, 24, 32), (3, 24, 32), (24, 32, 3)])
def test_npy_has_its_channels_first_or_last(tmp_path, shape):
    values = np.random.default_rng(3).random(shape)
    np.save(tmp_path / "a.npy", values)
    expected = values.transpose(2, 0, 1) if shape[-1] == 3 else values.reshape(-1, 24, 32)
    assert_same(load_image(tmp_path / "a.npy").pixels, expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_npy_integers_are_divided_by_the_largest_of_their_type(tmp_path, dtype):
    top = 1 if dtype is np.bool_ else np.iinfo(dtype).max
    np.save(tmp_path / "a.npy", np.array([[0, top]] * 2, dtype=dtype))
    assert load_image(tmp_path / "a.npy", min_side=1).pixels.tolist() == [[[0, 1], [0, 1]]]


def test_npy_with_columns_first_is_the_same_image_and_may_be_written_to(tmp_path):
    values = np.random.default_rng(4).random((24, 32), dtype=np.float32)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    pixels = load_image(tmp_path / "a.npy").pixels
    assert_same(pixels[0], values)
    assert pixels.flags.writeable  # torch warns of arrays that are not


def test_a_measurement_may_lie_beyond_the_range_by_a_margin(tmp_path):
    np.save(tmp_path / "y.npy", np.full((16, 16), 1.2))
    assert_same(load_image(tmp_path / "y.npy", margin=0.5).pixels, np.full((1, 16, 16), 1.2))
    with pytest.raises(InputError, match=r"values from 1\.2 to 1\.2; expected 0 \(black\) to 1 \(white\)"):
        load_image(tmp_path / "y.npy")


def hole(values):
    values = values.copy()
    values[3, 5] = np.nan
    return values


BAD_ARRAYS = {
    "nan": (hole(np.zeros((16, 16))), r"1 values that are NaN or infinite, the first at \(0, 3, 5\)"),
    "inf": (np.full((16, 16), np.inf), "256 values that are NaN or infinite"),
    "bytes": (np.full((16, 16), 200.0), "values from 200 to 200; expected 0"),
    "negative": (np.full((16, 16), -0.5), "values from -0.5"),
    "complex": (np.ones((16, 16), complex), "holds complex128; expected real numbers"),
    "objects": (np.array([[{}]]), "Objects are never unpickled"),
    "long": (np.ones((16, 16), np.int64), "holds int64"),
    "text": (np.array([["a"]]), "expected real numbers"),
    "line": (np.zeros(16), r"shape \(16,\); expected \(H, W\)"),
    "volume": (np.zeros((16, 16, 16)), r"shape \(16, 16, 16\)"),
    "none": (np.zeros((0, 16)), r"shape \(0, 16\), which has no values"),
    "small": (np.zeros((15, 40)), "15 x 40 pixels, too small: at least 16 a side"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_a_bad_array_is_named(tmp_path, name):
    values, sentence = BAD_ARRAYS[name]
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(InputError, match=sentence):
        load_image(tmp_path / "a.npy")


def npy_header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


BAD_FILES = {
    "empty.png": (b"", r"empty \(0 bytes\)"),
    "text.png": (b"not a picture\n" * 10, r"not an image \(looks like text\); expected PNG"),
    "noise.png": (bytes(range(128, 256)) * 8, "not an image; expected PNG"),
    "noise.tif": (b"II*\0" + bytes(range(256)), "TIFF file that cannot be read"),
    "noise.npy": (b"not numbers", "not a .npy file"),
    "bomb.png": (png(60000, 60000, 8, 2, b""), "too many pixels|million pixels"),
    "large.png": (png(12000, 12000, 8, 2, b""), "144 million pixels; the limit is 64 million"),
    "bomb.npy": (npy_header((10**6, 10**6)), "million pixels; the limit is 64 million"),
    "short.npy": (npy_header((16, 16)), "128 bytes, but its header says 2176: cut short"),
    "small.png": (png(1, 40, 8, 0, b"\0\0" * 40), "40 x 1 pixels, too small"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_in_a_line(tmp_path, name):
    content, sentence = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        load_image(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path):
    written(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"there is no file .*phto\.png\. Did you mean photo\.png\?"):
        load_image(tmp_path / "phto.png")


def test_a_directory_and_a_device_are_refused(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        load_image(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        load_image("/dev/zero")


@pytest.mark.parametrize("name", ["a.gif", "a.tif"])
def test_several_pages_are_refused(tmp_path, name):
    pages = [Image.fromarray(np.roll(LEVELS[..., 0], k, 0)) for k in range(3)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="has 3 pages; expected one image"):
        load_image(tmp_path / name)


def test_a_file_beyond_any_image_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(3 << 20)  # sparse
    with pytest.raises(InputError, match="3 MB, too many"):
        load_image(tmp_path / "a.png", max_pixels=100)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.gif", "a.webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_never_half_an_image(tmp_path, name, share):
    content = written(tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError):
        load_image(tmp_path / name)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(["a.png", "a.jpg", "a.tif", "a.bmp", "a.gif", "a.webp", "a.npy"]))
def test_a_damaged_file_is_an_image_or_an_input_error(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("damaged") / name
    if name == "a.npy":
        np.save(path, LEVELS[..., :3])
    else:
        written(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(InputError):  # and nothing else
        image = load_image(path)
        assert np.isfinite(image.pixels).all()
        assert image.pixels.shape[0] in (1, 3)


# grey, writing, the sample


def test_grey_stored_in_three_channels_is_one_channel(tmp_path):
    flat = np.repeat(planes(LEVELS[..., 0]), 3, 0)
    assert_same(grey(flat), flat[:1])
    with pytest.raises(InputError, match=r"has colour: its channels differ by up to 0\.98"):
        grey(planes(LEVELS[..., :3]))


@pytest.mark.parametrize("channels", [1, 3])
def test_saving_and_loading_is_the_identity_on_8_bits(tmp_path, channels):
    save_png(tmp_path / "a.png", torch.as_tensor(planes(LEVELS[..., :channels])))
    assert_same(load_image(tmp_path / "a.png").pixels, planes(LEVELS[..., :channels]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_saving_clips_and_never_rescales(tmp_path):
    save_png(tmp_path / "a.png", np.array([-0.4, 0.0, 0.5, 1.0, 7.0]).reshape(1, 1, 5))
    levels = load_image(tmp_path / "a.png", min_side=1).pixels * 255
    assert levels[0, 0].tolist() == [0, 0, 128, 255, 255]


def test_nan_is_not_saved_and_nothing_is_left_behind(tmp_path):
    with pytest.raises(InputError, match="12 values that are NaN"):
        save_png(tmp_path / "a.png", np.full((3, 2, 2), np.nan))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_two_channels_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"shape \(1 or 3, H, W\), but this one has \(2, 4, 4\)"):
        save_png(tmp_path / "a.png", np.zeros((2, 4, 4)))


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        save_png(tmp_path / "no" / "a.png", np.zeros((1, 4, 4)))


def test_saving_replaces_the_whole_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old" * 100_000)
    save_png(tmp_path / "a.png", np.zeros((1, 16, 16)))
    assert load_image(tmp_path / "a.png").pixels.max() == 0


def test_the_sample_photo_is_small_colourful_and_licensed():
    image = load_image(SAMPLE)
    assert image.pixels.shape == (3, 256, 256)
    assert SAMPLE.stat().st_size < 150_000
    assert "public domain" in (SAMPLE.parent / "README.md").read_text()


def test_load_array_reads_any_shape(tmp_path):
    np.save(tmp_path / "k.npy", np.arange(9).reshape(3, 3))
    assert load_array(tmp_path / "k.npy").tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
