import numpy as np
import pytest
import torch

from leadline.models.augmentation import Variations, _gather
from leadline.models.spec import Augmentation


def draw(
    augmentation: Augmentation, *, seed: int = 3, epoch: int = 1, images: int = 500
) -> Variations:
    variations = Variations.draw(
        augmentation, seed=seed, epoch=epoch, images=images, device=torch.device("cpu")
    )
    assert variations is not None
    return variations


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    random = np.random.default_rng(5)
    return torch.from_numpy(random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))


def plainly(image: np.ndarray, mirrored: bool, top: int, left: int) -> np.ndarray:
    """Augments one image with NumPy's own functions."""
    if mirrored:
        image = np.fliplr(image)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    return padded[4 + top : 36 + top, 4 + left : 36 + left]


@pytest.mark.parametrize("augmentation", [Augmentation.FLIP, Augmentation.FLIP_CROP])
def test_each_image_is_varied_as_is_drawn_for_its_place(
    pixels: torch.Tensor, augmentation: Augmentation
) -> None:
    variations, before = draw(augmentation), pixels.clone()

    varied = variations.apply(pixels, start=100)

    assert varied.dtype == torch.uint8
    for place, (image, result) in enumerate(zip(pixels, varied, strict=True), start=100):
        expected = plainly(
            image.numpy(),
            bool(variations.mirrored[place]),
            int(variations.top[place]),
            int(variations.left[place]),
        )
        assert np.array_equal(result.numpy(), expected)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("augmentation", [Augmentation.FLIP, Augmentation.FLIP_CROP])
def test_every_device_varies_images_alike(pixels: torch.Tensor, augmentation: Augmentation) -> None:
    variations = draw(augmentation)
    drawn = (values[:40] for values in (variations.mirrored, variations.top, variations.left))

    assert torch.equal(_gather(pixels, *drawn), variations.apply(pixels, start=0))


def test_half_are_mirrored_and_every_shift_occurs_equally_often() -> None:
    variations = draw(Augmentation.FLIP_CROP, images=90_000)

    assert variations.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.01)
    for shifts in (variations.top, variations.left):
        values, counts = np.unique(shifts.numpy(), return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert counts.min() > 9_500
        assert counts.max() < 10_500
    pair = torch.stack([variations.top, variations.left]).double()
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.02


def test_mirroring_alone_moves_nothing() -> None:
    variations = draw(Augmentation.FLIP)

    assert not variations.top.any()
    assert not variations.left.any()


def test_what_is_drawn_depends_on_seed_and_epoch_alone() -> None:
    first = draw(Augmentation.FLIP_CROP)

    assert torch.equal(draw(Augmentation.FLIP_CROP).top, first.top)
    assert torch.equal(draw(Augmentation.FLIP).mirrored, first.mirrored)
    assert not torch.equal(draw(Augmentation.FLIP_CROP, epoch=2).top, first.top)
    assert not torch.equal(draw(Augmentation.FLIP_CROP, seed=4).top, first.top)


def test_what_is_drawn_is_the_same_on_every_machine() -> None:
    variations = draw(Augmentation.FLIP_CROP, images=9)

    mirrored = [1, 1, 0, 0, 1, 1, 0, 1, 0]
    assert variations.mirrored.tolist() == [bool(one) for one in mirrored]
    assert variations.top.tolist() == [-4, -2, -3, 3, 1, -3, -1, 1, -3]
    assert variations.left.tolist() == [0, -4, -4, 0, 0, 1, -3, -1, 3]


def test_no_augmentation_draws_nothing() -> None:
    cpu = torch.device("cpu")
    assert Variations.draw(Augmentation.NONE, seed=0, epoch=1, images=3, device=cpu) is None
