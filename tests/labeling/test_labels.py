import json

import numpy as np
import pytest
from PIL import Image

from videomac.errors import UserError
from videomac.evaluate.images import write_ids
from videomac.labeling.labels import Labels, Point, read_index_png, read_mask_folder, read_points


def mask(height=8, width=10):
    ids = np.zeros((height, width), np.uint8)
    ids[2:5, 3:6] = 7
    return ids


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "1"])
def test_an_index_png_of_any_kind_gives_its_ids(tmp_path, mode):
    ids = mask() if mode != "1" else (mask() > 0).astype(np.uint8)
    if mode == "P":
        write_ids(tmp_path / "a.png", ids)
    else:
        Image.fromarray(ids.astype({"L": np.uint8, "I;16": np.uint16, "1": bool}[mode])).save(tmp_path / "a.png")
    assert np.array_equal(read_index_png(tmp_path / "a.png"), ids)


def test_pictures_that_are_no_masks_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match=r"rgb\.png is an RGB picture, but a mask must hold object ids: save it as"):
        read_index_png(tmp_path / "rgb.png")
    Image.fromarray(np.full((4, 4), 256, np.uint16)).save(tmp_path / "many.png")
    with pytest.raises(UserError, match=r"many\.png has id 256: ids go up to 255"):
        read_index_png(tmp_path / "many.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError, match="not a readable picture"):
        read_index_png(tmp_path / "text.png")


def test_a_folder_of_masks_is_read_by_the_numbers_of_its_frames(tmp_path):
    with pytest.raises(UserError, match="holds no PNG"):
        read_mask_folder(tmp_path)
    for name in ("00120.png", "3.png"):
        write_ids(tmp_path / name, mask())
    assert read_mask_folder(tmp_path).frames == [3, 120]
    write_ids(tmp_path / "last.png", mask())
    with pytest.raises(UserError, match=r"last\.png is not named by its frame number"):
        read_mask_folder(tmp_path)


def test_points_are_read_from_csv_and_json(tmp_path):
    (tmp_path / "a.csv").write_text("name,frame,x,y,visible\nnose,0,1.5,2,1\nnose,4,,,0\ntail,0,3,4,1\n")
    labels = read_points(tmp_path / "a.csv")
    assert labels.points == {0: {"nose": Point(1.5, 2), "tail": Point(3, 4)}, 4: {"nose": Point(0, 0, False)}}
    assert labels.point_names == ["nose", "tail"]
    rows = [
        {"name": "nose", "frame": 0, "x": 1.5, "y": 2},
        {"name": "nose", "frame": 4, "x": 0, "y": 0, "visible": False},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert read_points(tmp_path / "a.json").points == {0: {"nose": Point(1.5, 2)}, 4: {"nose": Point(0, 0, False)}}
    (tmp_path / "ours.csv").write_text("name,frame,x,y,visible,confidence\nnose,0,1,2,1,0.5\n")
    assert read_points(tmp_path / "ours.csv").points == {0: {"nose": Point(1, 2)}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,frame,x,y,visible,z\na,0,1,2,1,3\n", "unknown column 'z'; the columns are name, frame, x, y, visible"),
        ("name,frame,x\na,0,1\n", "column 'y' is missing"),
        ("name,frame,x,y,visible\na,0,1,two,1\n", r"line 2: frame must be a whole number, and x and y numbers"),
        ("name,frame,x,y,visible\na,0.5,1,2,1\n", "frame must be a whole number"),
        ("name,frame,x,y,visible\na,0,1,2,maybe\n", "visible must be 0 or 1, but is 'maybe'"),
        ("name,frame,x,y,visible\na,0,nan,2,1\n", "finite"),
        ("name,frame,x,y,visible\na,0,1,2,1\na,0,1,2,1\n", r"line 3: point a of frame 0 is there twice"),
        ("name,frame,x,y,visible\n", "holds no point"),
    ],
)
def test_a_table_that_is_wrong_is_explained(tmp_path, text, sentence):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_points(tmp_path / "a.csv")


def test_labels_of_several_files_come_together_unless_they_collide(tmp_path):
    labels = Labels(masks={0: mask()}, points={0: {"nose": Point(1, 2)}})
    labels.add(Labels(masks={5: mask()}, points={0: {"tail": Point(3, 4)}}), tmp_path)
    assert labels.frames == [0, 5] and labels.point_names == ["nose", "tail"] and labels.ids == [7]
    with pytest.raises(UserError, match="frame 5, which has a mask already"):
        labels.add(Labels(masks={5: mask()}), tmp_path)
    with pytest.raises(UserError, match="labels nose in frame 0 a second time"):
        labels.add(Labels(points={0: {"nose": Point(1, 2)}}), tmp_path)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (Labels(), "nothing is labelled"),
        (Labels(masks={0: np.zeros((8, 10), np.uint8)}), "nothing is labelled: the masks hold only background"),
        (Labels(masks={20: mask()}), "frame 20 is labelled, but the video has frames 0 to 19"),
        (Labels(masks={1: mask()}), "frame 1 is labelled, but --start and --stop take frames 2 to 14"),
        (Labels(masks={3: mask(9)}), "the mask of frame 3 is 10x9 pixels but the video is 10x8"),
        (Labels(points={3: {"nose": Point(9.6, 1)}}), r"point nose of frame 3 lies at \(9.6, 1\), outside the 10x8"),
    ],
)
def test_labels_that_do_not_belong_to_the_video_are_refused(labels, sentence):
    with pytest.raises(UserError, match=sentence):
        labels.check(20, (8, 10), 2, 15)


def test_a_point_that_is_not_visible_may_be_anywhere():
    Labels(masks={3: mask()}, points={3: {"nose": Point(-5, 1, False)}}).check(20, (8, 10), 2, None)
