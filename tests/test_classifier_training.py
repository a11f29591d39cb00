"""Training on whole images and on phantoms, and the files of classifiers."""

import dataclasses
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from invsolve.classifiers.formats import load_classifier, save_classifier
from invsolve.classifiers.network import ClassifierArchitecture, build_classifier
from invsolve.cli.train import train_command
from invsolve.errors import InputError, UnknownName
from invsolve.priors.catalogue import load_prior
from invsolve.priors.formats import side_of
from invsolve.priors.network import Architecture
from invsolve.training import TrainingConfig, kinds, loop, phantoms, read_config, train, whole

CONFIGS = Path(loop.__file__).parent / "configs"
PRIOR = TrainingConfig(
    name="tiny",
    architecture=Architecture(1, 4, (8, 8), 1),
    data="whole",
    crop=8,
    batch=4,
    images=4 * 3,
    hold_out=5,
)
CLASSIFIER = dataclasses.replace(
    PRIOR, kind="classifier", architecture=ClassifierArchitecture(1, (8, 8), 1, 3), name="tiny-classifier"
)


@pytest.fixture
def images():
    """Sixty images of 6 x 6 pixels, 40 n brighter in class n."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    return (rng.integers(0, 99, (60, 6, 6)) + 60 * labels[:, None, None]).astype(np.uint8), labels


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def mnist(tmp_path, images):
    """A folder like MNIST's."""
    pixels, labels = images
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
    (tmp_path / "data" / "train-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    return tmp_path / "data"


# whole images


def test_idx_files_are_read_with_their_labels_and_a_black_border(mnist, images):
    source = whole.load_whole([mnist], PRIOR)
    assert source.pixels.shape == (60, 8, 8, 1)
    assert np.array_equal(source.pixels[:, 1:7, 1:7, 0], images[0])
    assert source.pixels[:, [0, 7]].max() == 0
    assert np.array_equal(source.labels, images[1])


def test_npz_files_and_folders_of_classes_are_the_same_images(tmp_path, images, mnist):
    pixels, labels = images
    np.savez(tmp_path / "d.npz", images=pixels, labels=labels)
    for k, (p, c) in enumerate(zip(*images, strict=True)):
        (tmp_path / "files" / str(c)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(p).save(tmp_path / "files" / str(c) / f"{k}.png")
    one, two, three = (whole.load_whole([tmp_path / p], PRIOR) for p in ("data", "d.npz", "files"))
    assert np.array_equal(one.pixels, two.pixels)
    assert np.array_equal(one.labels, two.labels)
    rows = [
        sorted(zip(s.pixels.reshape(60, -1).tolist(), s.labels.tolist(), strict=True)) for s in (one, three)
    ]
    assert rows[0] == rows[1]


def test_images_held_out_are_never_drawn(mnist):
    source = whole.load_whole([mnist], PRIOR)
    drawn, classes = source.draw(500, np.random.default_rng(0))
    held, held_classes = source.held_out()
    assert (len(held), held_classes.tolist()) == (5, [1, 2, 0, 1, 2])
    assert not any((image == drawn).flatten(1).all(1).any() for image in held)
    assert set(classes.tolist()) == {0, 1, 2}


def test_a_batch_is_a_function_of_its_generator(mnist):
    source = whole.load_whole([mnist], PRIOR)
    a, b, c = (source.batch(PRIOR, 0, np.random.default_rng(k)) for k in (0, 0, 1))
    assert a.shape == (4, 1, 8, 8)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 5}, "crop is 5"),
        ({"hold_out": 60}, "leaves nothing"),
        ({"architecture": Architecture(3, 4, (8, 8), 1)}, "in_channels is 3"),
    ],
)
def test_whole_images_that_do_not_fit_are_refused(mnist, change, message):
    with pytest.raises(InputError, match=message):
        whole.load_whole([mnist], dataclasses.replace(PRIOR, **change))


def test_damaged_files_are_refused_by_name(tmp_path, mnist):
    path = mnist / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="labels-idx1-ubyte is no whole idx file"):
        whole.load_whole([mnist], PRIOR)
    (tmp_path / "d.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"d\.npz has no array"):
        whole.load_whole([tmp_path / "d.npz"], PRIOR)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        whole.load_whole([tmp_path / "nowhere"], PRIOR)


# phantoms


def test_phantoms_are_a_function_of_their_generator_and_fill_the_range():
    a, b, c = (phantoms.batch(3, 32, np.random.default_rng(k)) for k in (0, 0, 1))
    assert a.shape == (3, 1, 32, 32)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    many = phantoms.batch(40, 32, np.random.default_rng(2))
    assert (many.min(), many.max()) == (-1, 1)
    assert 0.2 < many.std() < 0.8  # measured: 0.48; sigma_data of the config is 0.5


def test_an_ellipse_covers_its_area_and_its_edge_is_one_pixel_wide():
    pixel = 2 / 64
    steps = (np.arange(64) + 0.5) * pixel - 1
    x, y = np.meshgrid(steps, steps)
    share = phantoms.ellipses(x, y, np.array([[0.1, -0.2, 0.6, 0.3, 0.7]]), np.array([pixel]))[0]
    area = share.sum() * pixel**2
    assert abs(area / (np.pi * 0.6 * 0.3) - 1) < 0.02  # the edge's distance is a little off where it bends
    assert ((share > 0) & (share < 1)).mean() < 0.12


def test_a_smooth_field_is_smoother_than_noise():
    field = phantoms.smooth_field(64, np.random.default_rng(0))
    assert abs(field.std() - 1) < 1e-12
    assert np.diff(field, axis=0).std() < 0.6  # white noise: 1.41


def test_phantoms_take_no_data(tmp_path):
    config = dataclasses.replace(PRIOR, data="phantoms")
    with pytest.raises(InputError, match="leave out --data"):
        kinds.load_source([tmp_path], config)
    train(config, [], tmp_path / "out")
    assert load_prior(tmp_path / "out" / "tiny.safetensors").shape == (1, None, None)
    row = json.loads((tmp_path / "out" / "validation.jsonl").read_text())
    assert set(row) == {"step", "images", "seconds", "psnr"}


# the run


@pytest.mark.parametrize("name", [f.stem for f in sorted(CONFIGS.glob("*.toml"))])
def test_the_packaged_configs_are_valid(name):
    assert read_config(CONFIGS / f"{name}.toml").name in (name, name.split("-")[0])


def test_a_prior_of_whole_images_knows_its_size_and_is_measured_on_those_held_out(mnist, tmp_path):
    train(PRIOR, [mnist], tmp_path / "out")
    assert load_prior(tmp_path / "out" / "tiny.safetensors").shape == (1, 8, 8)
    row = json.loads((tmp_path / "out" / "validation.jsonl").read_text())
    assert len(row["psnr"]) == 8


@pytest.mark.slow
def test_a_classifier_learns_and_knows_less_in_noise(mnist, tmp_path):
    config = dataclasses.replace(CLASSIFIER, images=4 * 400, rate=1e-2, warm_up=20, sigma_min=0.02)
    train(config, [mnist], tmp_path / "out")
    accuracy = json.loads((tmp_path / "out" / "validation.jsonl").read_text())["accuracy"]
    assert accuracy["0.02"] == 1.0  # five images of 6 x 6 pixels whose means are 60 apart, sd 5
    net = load_classifier(tmp_path / "out" / "tiny-classifier.safetensors")
    assert net.shape == (1, 8, 8)
    x = (whole.load_whole([mnist], config).held_out()[0] + 1) / 2
    level = torch.ones(5, dtype=torch.float64)
    sure, lost = (net(x, s * level).softmax(1).amax(1) for s in (0.0, 40.0))
    assert sure.min() > 0.8
    assert lost.max() < 0.6


def test_a_classifier_goes_on_from_another_and_learns_its_slopes_beside_a_prior(mnist, tmp_path):
    train(PRIOR, [mnist], tmp_path / "prior")
    train(CLASSIFIER, [mnist], tmp_path / "first")
    start = tmp_path / "first" / "tiny-classifier.safetensors"
    beside = str(tmp_path / "prior" / "tiny.safetensors")
    nets = []
    for slopes in (1.0, 2.0):
        config = dataclasses.replace(CLASSIFIER, slopes=slopes, beside=beside, images=4, rate=1e-9)
        train(config, [mnist], tmp_path / str(slopes), start=start)
        nets.append(load_classifier(tmp_path / str(slopes) / "tiny-classifier.safetensors"))
        losses = [float(f.read_text().split(",")[1]) for f in (tmp_path / str(slopes)).glob("loss.csv")]
        nets[-1].first = losses[0]
    x, sigma = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(3)
    torch.testing.assert_close(*(net(x, sigma) for net in (nets[0], load_classifier(start))))
    assert nets[0].first != nets[1].first


def test_a_classifier_without_labels_is_refused(tmp_path, images):
    np.savez(tmp_path / "d.npz", images=images[0])
    with pytest.raises(InputError, match="needs labels"):
        train(CLASSIFIER, [tmp_path / "d.npz"], tmp_path / "out")
    few = dataclasses.replace(CLASSIFIER, architecture=ClassifierArchitecture(1, (8, 8), 1, 2))
    np.savez(tmp_path / "e.npz", images=images[0], labels=images[1])
    with pytest.raises(InputError, match="classes is too small"):
        train(few, [tmp_path / "e.npz"], tmp_path / "out")


def test_the_kind_of_training_goes_over_the_config_and_is_checked(tmp_path):
    (tmp_path / "c.toml").write_text("[architecture]\nwidths = [8]")
    assert read_config(tmp_path / "c.toml", "classifier").architecture == ClassifierArchitecture(1, (8,))
    with pytest.raises(UnknownName, match="Did you mean 'classifier'"):
        read_config(tmp_path / "c.toml", "clasifier")
    (tmp_path / "c.toml").write_text('data = "crop"')
    with pytest.raises(UnknownName, match="Did you mean 'crops'"):
        read_config(tmp_path / "c.toml")


def test_the_command_trains_a_classifier(mnist, tmp_path):
    text = 'name = "c"\ndata = "whole"\ncrop = 8\nimages = 32\n[architecture]\nwidths = [8]\nclasses = 3'
    (tmp_path / "c.toml").write_text(text)
    app = typer.Typer()
    app.command()(train_command)
    place = ["--config", tmp_path / "c.toml", "--data", mnist, "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, ["--kind", "classifier", *map(str, place)])
    assert result.exit_code == 0, result.output
    assert load_classifier(tmp_path / "out" / "c.safetensors").classes == 3


def test_training_without_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="no data to learn from"):
        train(PRIOR, [], tmp_path / "out")


# the network and its file


@pytest.fixture
def network():
    """A small classifier with weights that are not zero."""
    made = build_classifier(ClassifierArchitecture(1, (8, 12), 1, 3))
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return made


def saved(path, network):
    save_classifier(
        path, network, name="tiny", licence="CC0 1.0", sigma_min=0.005, sigma_max=40.0, about={"images": "3"}
    )


def test_a_batch_of_logits_equals_its_members(network):
    x = torch.randn(3, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    each = torch.cat([network(x[k : k + 1], sigma[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(network(x, sigma), each, rtol=1e-4, atol=1e-5)  # float32


def test_a_saved_classifier_loads_as_itself(tmp_path, network):
    saved(tmp_path / "c.safetensors", network)
    loaded = load_classifier(tmp_path / "c.safetensors")
    x, sigma = torch.rand(2, 1, 8, 8), torch.tensor([0.2, 3.0], dtype=torch.float64)
    half = {k: v.half().float() for k, v in network.state_dict().items()}
    network.load_state_dict(half)
    torch.testing.assert_close(loaded(x, sigma), network(2 * x - 1, 2 * sigma))
    assert (loaded.classes, loaded.metadata["licence"]) == (3, "CC0 1.0")


def test_a_damaged_classifier_is_refused(tmp_path, network):
    path = tmp_path / "c.safetensors"
    saved(path, network)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load_classifier(path)
    path.write_bytes(content[:-3])
    with pytest.raises(InputError, match="cut short"):
        load_classifier(path)


@pytest.mark.parametrize("side", ["0", "-8", "eight", ""])
def test_a_size_that_is_none_is_refused(side):
    with pytest.raises(InputError, match="must be a number of pixels"):
        side_of(Path("x.safetensors"), {"side": side})


def test_a_prior_is_no_classifier_and_the_reverse(tmp_path, network, mnist):
    saved(tmp_path / "c.safetensors", network)
    with pytest.raises(InputError, match="invsolve-classifier-1"):
        load_prior(tmp_path / "c.safetensors")
    train(PRIOR, [mnist], tmp_path / "out")
    with pytest.raises(InputError, match="invsolve-prior-1"):
        load_classifier(tmp_path / "out" / "tiny.safetensors")
