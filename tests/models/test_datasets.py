import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from leadline.models.datasets import (
    Dataset,
    DatasetError,
    check_source,
    find_dataset,
    listing,
    open_dataset,
)
from leadline.models.images import DecodingStoppedError

Check = Callable[[Dataset], None]
Files = dict[str, bytes]
Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "no-suffix"])
def test_a_tar_is_a_dataset(
    image_files: Files, write_tar: Write, name: str, cache_dir: Path, assert_is_fixture: Check
) -> None:
    path = write_tar(image_files, name)
    check_source(str(path))
    assert_is_fixture(open_dataset(str(path), cache_dir))


def test_a_folder_is_a_dataset(
    image_files: Files, write_folder: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    path = write_folder(image_files)
    check_source(str(path))
    assert_is_fixture(open_dataset(str(path), cache_dir))


def test_aspect_ratios_are_kept_as_people_see_the_images(
    image_files: Files, write_tar: Write, write_folder: Write, cache_dir: Path
) -> None:
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    wide, turned = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 48)).save(wide, "PNG")
    Image.new("RGB", (64, 48)).save(turned, "JPEG", exif=on_its_side)
    files = image_files | {
        "train/cat/1.png": wide.getvalue(),
        "train/dog/0.jpg": turned.getvalue(),
    }
    for source in (write_tar(files), write_folder(files)):
        dataset = open_dataset(str(source), cache_dir)
        again = find_dataset(dataset.fingerprint, cache_dir)
        assert again.train.aspect_ratios is not None
        assert again.train.aspect_ratios.tolist() == pytest.approx([1, 4 / 3, 3 / 4, 1])
        assert again.test.aspect_ratios is None


def test_order_does_not_depend_on_the_tars(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    backwards = dict(reversed(image_files.items()))
    assert_is_fixture(open_dataset(str(write_tar(backwards)), cache_dir))


@pytest.mark.parametrize("lead", ["./", "data/", "./data/"])
def test_a_leading_folder_is_fine(
    image_files: Files, write_tar: Write, cache_dir: Path, lead: str, assert_is_fixture: Check
) -> None:
    files = {lead + name: data for name, data in image_files.items()}
    assert_is_fixture(open_dataset(str(write_tar(files)), cache_dir))


def test_equal_contents_are_one_dataset_however_they_are_packed(
    image_files: Files, write_tar: Write, write_folder: Write, cache_dir: Path
) -> None:
    sources = [
        write_tar(image_files),
        write_tar(dict(reversed(image_files.items())), "b.tar.gz"),
        write_folder(image_files),
    ]
    datasets = [open_dataset(str(source), cache_dir) for source in sources]
    assert len({dataset.fingerprint for dataset in datasets}) == 1
    assert len(list(cache_dir.glob("*/dataset.json"))) == 1


def test_other_contents_are_another_dataset(
    image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    first = open_dataset(str(write_tar(image_files)), cache_dir)
    image_files["test/dog/1.png"] = image_files["test/dog/0.png"]
    second = open_dataset(str(write_tar(image_files)), cache_dir)
    assert first.fingerprint != second.fingerprint


def test_a_changed_folder_is_decoded_again(
    image_files: Files, write_folder: Write, cache_dir: Path
) -> None:
    path = write_folder(image_files)
    open_dataset(str(path), cache_dir)
    (path / "train/dog/1.png").write_bytes(image_files["train/dog/0.png"])
    assert len(open_dataset(str(path), cache_dir).train) == 4


def test_files_that_are_no_images_are_left_out(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    others = {
        "README.md": b"hello",
        "train/cat/notes.txt": b"hello",
        "train/cat/.hidden.png": b"hello",
        "train/cat/deeper/0.png": b"hello",
        "elsewhere/cat/0.png": b"hello",
        "/train/cat/9.png": b"hello",
        "../train/cat/9.png": b"hello",
    }
    assert_is_fixture(open_dataset(str(write_tar(image_files | others)), cache_dir))


def test_a_dataset_is_decoded_once(image_files: Files, write_tar: Write, cache_dir: Path) -> None:
    path = write_tar(image_files)
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        open_dataset(str(path), cache_dir, progress=lambda *step: seen.append(step))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_dataset_is_found_by_its_fingerprint(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    opened = open_dataset(str(write_tar(image_files)), cache_dir)
    assert_is_fixture(find_dataset(opened.fingerprint, cache_dir))


@pytest.mark.parametrize("fingerprint", ["0" * 64, "", "../secret", "synthetic"])
def test_an_unknown_fingerprint_is_refused(fingerprint: str, cache_dir: Path) -> None:
    with pytest.raises(DatasetError, match="is in the cache"):
        find_dataset(fingerprint, cache_dir)


def refuses(path: Path, cache_dir: Path, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        open_dataset(str(path), cache_dir)
    assert not list(cache_dir.glob("*/dataset.json"))


def test_what_is_no_source_is_refused_at_once(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello " * 1000)
    empty = tmp_path / "empty"
    empty.touch()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for source, says in {
        tmp_path / "missing": "does not exist",
        text: "not a complete tar",
        empty: "not a complete tar",
        fifo: "neither a folder nor a tar",
        tmp_path: "no folder train and no folder test",
        "": "no folder",
        "~nobody-of-this-name/images": "cannot be looked up",
        "a\0b": "does not exist",
    }.items():
        with pytest.raises(DatasetError, match=says):
            check_source(str(source))


def test_the_built_in_sources_pass_the_check() -> None:
    check_source("synthetic")
    check_source("torchvision:cifar10")


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("test/", "has no test images"),
        ("train/", "has no train images"),
        ("test/cat", "only one of train and test: cat"),
        ("t", "contains no images; expected train/CLASS"),
    ],
)
def test_what_is_missing_is_named(
    image_files: Files, write_tar: Write, cache_dir: Path, without: str, says: str
) -> None:
    files = {name: data for name, data in image_files.items() if not name.startswith(without)}
    refuses(write_tar({"README": b""} | files), cache_dir, says)


def test_one_class_is_too_few(image_files: Files, write_tar: Write, cache_dir: Path) -> None:
    files = {name: data for name, data in image_files.items() if "cat" in name}
    refuses(write_tar(files), cache_dir, "2 to 1,000 classes, but this one has 1")


def test_more_than_a_thousand_classes_are_too_many(write_tar: Write, cache_dir: Path) -> None:
    names = [f"{split}/{number}/0.png" for split in ("train", "test") for number in range(1_001)]
    refuses(write_tar(dict.fromkeys(names, b"")), cache_dir, "but this one has 1,001")


def test_two_leading_folders_are_too_many(
    image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    more = {"other/" + name: data for name, data in image_files.items()}
    refuses(write_tar(image_files | more), cache_dir, "more than one folder")


def test_a_name_that_is_there_twice_is_refused(
    image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    files = image_files | {"./train/cat/0.png": image_files["train/dog/0.png"]}
    refuses(write_tar(files), cache_dir, "contains a file twice")


def test_a_class_name_must_be_text(image_files: Files, write_tar: Write, cache_dir: Path) -> None:
    files = {name.replace("cat", "c\nat"): data for name, data in image_files.items()}
    refuses(write_tar(files), cache_dir, r"not text: 'c\\nat'")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_cannot_be_decoded_is_named(
    image_files: Files,
    write_tar: Write,
    write_folder: Write,
    cache_dir: Path,
    data: bytes,
) -> None:
    files = image_files | {"test/dog/1.png": data}
    for path in (write_tar(files), write_folder(files)):
        refuses(path, cache_dir, "test/dog/1.png: the image is")


def test_the_limit_on_pixels_is_the_callers(
    image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    with pytest.raises(DatasetError, match=r"0\.png: the image is too large: 32x32"):
        open_dataset(str(write_tar(image_files)), cache_dir, max_pixels=1_000)


def test_links_in_a_tar_are_not_followed(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    path = write_tar(image_files)
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"train/cat/{kind!r}.png")
            member.type = kind
            member.linkname = "/etc/hostname"
            tar.addfile(member)
    assert_is_fixture(open_dataset(str(path), cache_dir))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_a_tar_that_is_cut_short_is_refused(
    image_files: Files, write_tar: Write, cache_dir: Path, name: str
) -> None:
    path = write_tar(image_files, name)
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9):
        # The zeros at the end of a plain tar do not count.
        path.write_bytes(whole[: int(len(whole.rstrip(b"\0")) * share)])
        refuses(path, cache_dir, "is not a complete tar|no test images|only one of")


def test_a_tar_that_is_cut_between_two_files_is_refused(
    image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    path = write_tar(image_files)
    with tarfile.open(path) as tar:
        start_of_last = tar.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:start_of_last])
    refuses(path, cache_dir, "the end of the tar is missing")


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="'synthetic' cannot be opened"):
        open_dataset("synthetic", tmp_path / "file")


def test_torchvisions_cifar10_is_a_dataset(
    monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    class Downloaded:
        def __init__(self, root: Path, *, train: bool, download: bool) -> None:
            assert root == cache_dir / "torchvision"
            assert download
            self.targets = [3, 9, 0] if train else [1]
            self.data = np.full((len(self.targets), 32, 32, 3), 7, np.uint8)
            self.classes = ["airplane", *(f"class{label}" for label in range(1, 10))]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Downloaded)
    dataset = open_dataset("torchvision:cifar10", cache_dir)
    assert [dataset.class_names[label] for label in dataset.train.labels] == [
        "class3",
        "class9",
        "airplane",
    ]
    assert dataset.train.images.shape == (3, 32, 32, 3)


def test_a_failed_download_says_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(DatasetError, match=r"no route to host.*--dataset cifar10=PATH"):
        open_dataset("torchvision:cifar10", cache_dir)


def long_link(name: bytes) -> bytes:
    """Returns a member of a tar that has the name of the next one."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, len(name) + 1
    return header.tobuf(tarfile.USTAR_FORMAT) + name + bytes(-len(name) % tarfile.BLOCKSIZE or 512)


@pytest.mark.parametrize("size", [1 << 17, 1 << 24])
def test_a_tar_with_a_name_without_end_is_refused_unread(tmp_path: Path, size: int) -> None:
    path = tmp_path / "long.tar"
    path.write_bytes(long_link(b"x" * size) + tarfile.TarInfo("x").tobuf() + bytes(1024))
    tracemalloc.start()
    with pytest.raises(DatasetError, match="such as its name, have more than 65,536 bytes"):
        check_source(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_names_of_a_tars_images_are_limited_together(
    monkeypatch: pytest.MonkeyPatch, image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    monkeypatch.setattr(listing, "_MAX_PATH_CHARACTERS", 50)
    with pytest.raises(DatasetError, match="have more than 50 characters: use shorter ones"):
        open_dataset(str(write_tar(image_files)), cache_dir)


def test_nothing_is_kept_of_the_members_of_a_tar_that_are_no_images(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    others = {f"elsewhere/{'x' * 150}/{number}": b"" for number in range(3_000)}
    path = write_tar(image_files | others)
    tracemalloc.start()
    dataset = open_dataset(str(path), cache_dir)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_is_fixture(dataset)
    assert peak < 3 << 20


@pytest.mark.parametrize("calls", [0, 1, 3, 10, 16])
@pytest.mark.parametrize("write", ["write_tar", "write_folder"])
def test_opening_stops_when_it_is_not_wanted_any_more(
    request: pytest.FixtureRequest, image_files: Files, cache_dir: Path, write: str, calls: int
) -> None:
    path = request.getfixturevalue(write)(image_files)
    answers = iter([True] * calls)
    with pytest.raises(DecodingStoppedError):
        open_dataset(str(path), cache_dir, is_wanted=lambda: next(answers, False))
    assert not list(cache_dir.glob("*/dataset.json"))
    assert not list(cache_dir.glob(".building-*"))
