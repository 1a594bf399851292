import json

import numpy as np
import pytest

import videomac
from tests.labeling.made_up import QUICK, joints_of, write_masks, write_points
from videomac.errors import UserError
from videomac.evaluate.images import read_ids
from videomac.labeling.formats import read_labels
from videomac.labeling.frames import open_video

pytest.importorskip("pycocotools")
SIZE = (64, 96)


@pytest.fixture
def written(scene, folder, tmp_path):
    labels = [write_masks(tmp_path / "m", scene, [0]), write_points(tmp_path / "p.csv", joints_of(scene, [0]))]
    videomac.propagate_video(folder, labels=labels, out=tmp_path / "out", formats=["coco"], **QUICK)
    return tmp_path / "out"


def test_pycocotools_reads_what_was_written(written):
    from pycocotools.coco import COCO

    coco = COCO(str(written / "coco.json"))
    assert len(coco.imgs) == 10
    for image in coco.imgs.values():
        ids = read_ids(written / "masks" / f"{image['id'] - 1:05d}.png")
        assert image["file_name"] == f"{image['id'] - 1:05d}.png"
        for entry in coco.imgToAnns[image["id"]]:
            if entry["segmentation"]:
                truth = ids == entry["category_id"]
                assert np.array_equal(coco.annToMask(entry).astype(bool), truth) and entry["area"] == truth.sum()
            else:
                assert entry["num_keypoints"] == 4 and len(entry["keypoints"]) == 12


def test_it_is_read_back_as_labels(written, scene, folder):
    labels = read_labels(written / "coco.json", open_video(folder), 0, SIZE)
    assert labels.frames == list(range(10)) and labels.ids == [1, 2] and labels.names == {1: "object 1", 2: "object 2"}
    assert np.array_equal(labels.masks[0], scene.objects[0])
    assert labels.points[0]["joint1"].x == scene.joints[0, 4, 0]


def content(segmentation, name="frame_00003.png", size=SIZE, **more):
    return {
        "images": [{"id": 9, "file_name": name, "height": size[0], "width": size[1]}],
        "categories": [{"id": 2, "name": "fly"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 2, "segmentation": segmentation, **more}],
    }


def test_polygons_and_plain_run_lengths_of_other_tools_are_read(clips, tmp_path):
    from videomac.data.video_file import VideoFile

    video, size = VideoFile(clips / "clip0.mp4"), (72, 96)
    polygon = [[10, 20, 30, 20, 30, 50, 10, 50]]
    counts = [72 * 10 + 20, 5, 72 * 96 - 72 * 10 - 25]  # columns first, as COCO counts
    for segmentation, area in ((polygon, 600), ({"size": list(size), "counts": counts}, 5)):
        (tmp_path / "a.json").write_text(json.dumps(content(segmentation, size=size, attributes={"track_id": 7})))
        labels = read_labels(tmp_path / "a.json", video, 0, size)
        assert labels.frames == [3] and labels.ids == [7]
        assert abs((labels.masks[3] == 7).sum() - area) <= 0.1 * area


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (content([], size=(50, 50)), "is of another video: its frame_00003.png is 50x50 pixels, walk is 96x64"),
        (content([]), "is of another video: there is no frame_00003.png in walk"),
        (content([], name="00003.png"), "holds no annotation"),
        ({"images": []}, "is no complete COCO file"),
        (content([[1, 1, 9, 1, 9, 9]], name="00003.png", track_id=300), "has object 300: ids go from 1 to 255"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, tmp_path, text, sentence):
    (tmp_path / "a.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match=sentence):
        read_labels(tmp_path / "a.json", open_video(folder), 0, SIZE)


def test_two_objects_of_one_category_need_tracks(folder, tmp_path):
    twice = content([[1, 1, 9, 1, 9, 9]], name="00003.png")
    twice["annotations"].append({**twice["annotations"][0], "id": 2, "segmentation": [[20, 20, 40, 20, 40, 40]]})
    (tmp_path / "a.json").write_text(json.dumps(twice))
    with pytest.raises(UserError, match="several annotations of category fly in one image and no track_id"):
        read_labels(tmp_path / "a.json", open_video(folder), 0, SIZE)
    for number, entry in enumerate(twice["annotations"], start=1):
        entry["attributes"] = {"track_id": number}
    (tmp_path / "a.json").write_text(json.dumps(twice))
    assert read_labels(tmp_path / "a.json", open_video(folder), 0, SIZE).ids == [1, 2]
