import builtins

import pytest

from tests.labeling.made_up import joints_of
from videomac.errors import UserError
from videomac.labeling.formats import check_formats, read_labels
from videomac.labeling.frames import open_video
from videomac.labeling.labels import Labels


def test_files_of_no_kind_are_named(folder, tmp_path):
    (tmp_path / "a.xml").write_text("")
    (tmp_path / "a.json").write_text("{")
    for name, sentence in (
        ("a.xml", "is no kind of labels"),
        ("a.json", "not valid JSON"),
        ("b.csv", "does not exist"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_labels(tmp_path / name, open_video(folder), 0, (64, 96))


def test_a_format_that_cannot_be_written_is_refused_before_any_work(scene, monkeypatch):
    with pytest.raises(UserError, match="--formats dlc holds points, and none is labelled"):
        check_formats(["dlc"], Labels(masks={0: scene.objects[0]}))
    find = builtins.__import__

    def missing(name, *arguments):
        if name.startswith(("pycocotools", "sleap_io")):
            raise ImportError
        return find(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in ("coco", "sleap"):
        with pytest.raises(UserError, match=rf"pip install '\.\[{name}\]' in the checkout"):
            check_formats([name], joints_of(scene, [0]))
